//! Coverage marks and planted mutants, compiled out unless the feature `sim` is on.
//!
//! `mark!("name")` records that a run reached a place worth reaching (simulation.md §10);
//! `mutant!(M01)` is true only where the simulator switched that planted bug on (§12.1). Both are
//! kept per thread, since the simulator runs one world on one thread; the shipped binary contains
//! neither. `buggify!("name")` is true now and then in some worlds: something legal but unusual
//! happens there (simulation.md §5.2).

/// Records that this place was reached, in simulation only.
#[macro_export]
macro_rules! mark {
    ($name:literal) => {
        #[cfg(feature = "sim")]
        $crate::marks::hit($name);
    };
}

/// Whether the planted bug is switched on; `false` outside the simulation.
#[macro_export]
macro_rules! mutant {
    ($id:ident) => {{
        #[cfg(feature = "sim")]
        {
            $crate::marks::mutant_on(stringify!($id))
        }
        #[cfg(not(feature = "sim"))]
        {
            false
        }
    }};
}

/// Whether something legal but unusual is to happen here; `false` outside the simulation.
#[macro_export]
macro_rules! buggify {
    ($name:literal) => {{
        #[cfg(feature = "sim")]
        {
            $crate::marks::buggified($name)
        }
        #[cfg(not(feature = "sim"))]
        {
            false
        }
    }};
}

#[cfg(feature = "sim")]
#[expect(
    clippy::disallowed_types,
    reason = "test instrumentation, absent from the shipped binary and from every decision"
)]
mod enabled {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    /// What puts so many things into an order: the place of each.
    pub type Order = fn(usize) -> Vec<usize>;

    mod cells {
        use super::{BTreeMap, Cell, Order, RefCell};
        thread_local! {
            pub(super) static HITS: RefCell<BTreeMap<&'static str, u64>> =
                const { RefCell::new(BTreeMap::new()) };
            pub(super) static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
            pub(super) static DISORDER: Cell<Option<Order>> = const { Cell::new(None) };
            /// The world's seed, the luck of the moment, and how often any place has asked in it;
            /// without a seed nothing happens.
            pub(super) static BUGGIFY: Cell<Option<(u64, u64, u64)>> = const { Cell::new(None) };
            /// A place that is unusual every time.
            pub(super) static ALWAYS: Cell<Option<&'static str>> = const { Cell::new(None) };
        }
    }

    /// Counts one hit of the mark `name` on this thread.
    pub fn hit(name: &'static str) {
        cells::HITS.with(|hits| *hits.borrow_mut().entry(name).or_insert(0) += 1);
    }

    /// Takes the marks counted on this thread so far.
    pub fn take_hits() -> BTreeMap<&'static str, u64> {
        cells::HITS.with(|hits| std::mem::take(&mut *hits.borrow_mut()))
    }

    /// Switches one planted bug on for this thread, or all off.
    pub fn set_mutant(id: Option<&'static str>) {
        cells::MUTANT.with(|mutant| mutant.set(id));
    }

    /// Lets unusual things happen on this thread as the world of `seed` wants them, or none.
    pub fn set_buggify(seed: Option<u64>) {
        cells::BUGGIFY.with(|cell| cell.set(seed.map(|seed| (seed, 0, 0))));
    }

    /// Whether unusual things may happen on this thread at all.
    pub fn is_buggified() -> bool {
        cells::BUGGIFY.with(|cell| cell.get().is_some())
    }

    /// What happens from here on depends on `luck`, and not on what happened before.
    pub fn buggify_by(luck: u64) {
        cells::BUGGIFY.with(|cell| cell.set(cell.get().map(|(seed, ..)| (seed, luck, 0))));
    }

    /// Lets the unusual thing at one place on this thread happen every time, or at none.
    pub fn set_always(place: Option<&'static str>) {
        cells::ALWAYS.with(|always| always.set(place));
    }

    /// Whether the unusual happens at the place `name` this time: a quarter of the places are
    /// active in a world, and an active one fires every fourth time.
    pub fn buggified(name: &str) -> bool {
        if cells::ALWAYS.with(|always| always.get() == Some(name)) {
            return true;
        }
        let Some((seed, luck, asked)) = cells::BUGGIFY.with(Cell::get) else { return false };
        cells::BUGGIFY.with(|cell| cell.set(Some((seed, luck, asked + 1))));
        let place = name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        place.is_multiple_of(4) && mix(place ^ luck ^ asked).is_multiple_of(4)
    }

    /// Spreads a number over all bits (the finalizer of `SplitMix64`).
    const fn mix(number: u64) -> u64 {
        let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// Says what puts things on this thread out of order where a planted bug does (M49). It comes
    /// from outside: nothing in here is random.
    pub fn set_disorder(order: Option<Order>) {
        cells::DISORDER.with(|disorder| disorder.set(order));
    }

    /// The items as the planted bug M49 orders them: as they are unless somebody said how.
    pub fn disordered<T: Clone>(items: Vec<T>) -> Vec<T> {
        let Some(order) = cells::DISORDER.with(Cell::get) else { return items };
        order(items.len()).into_iter().filter_map(|at| items.get(at).cloned()).collect()
    }

    /// Whether the planted bug `id` is on.
    pub fn mutant_on(id: &str) -> bool {
        cells::MUTANT.with(|mutant| mutant.get() == Some(id))
    }
}

#[cfg(feature = "sim")]
pub use enabled::{
    Order, buggified, buggify_by, disordered, hit, is_buggified, mutant_on, set_always,
    set_buggify, set_disorder, set_mutant, take_hits,
};
