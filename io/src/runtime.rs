//! The executor that every task of this package runs on: one thread for each processor.
//!
//! It starts with the first task and lives as long as the process (performance-notes.md §7).

use crate::system::processors;
use smol::future::{FutureExt as _, pending};
use smol::{Executor, Task, Timer};
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static EXECUTOR: LazyLock<Arc<Executor<'static>>> = LazyLock::new(|| {
    for number in 0..processors() {
        let name = format!("worker-{number}");
        let worker = || smol::block_on(EXECUTOR.run(pending::<()>()));
        std::thread::Builder::new()
            .name(name)
            .spawn(worker)
            .expect("a process that cannot start its worker threads cannot run");
    }
    Arc::new(Executor::new())
});

/// The executor, for servers that spawn many tasks.
pub fn executor() -> &'static Arc<Executor<'static>> {
    &EXECUTOR
}

/// Runs `future` on the executor. Dropping the task cancels it; `detach` lets it run.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(future)
}

/// The future's value, or `None` if it takes longer than `limit`.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    before(&mut Timer::after(limit), future).await
}

/// The future's value, or `None` if `late` ends first, which uses the timer up. Whoever waits in
/// turns shares one among them, so that being woken often does not make the wait longer.
pub async fn before<T>(late: &mut Timer, future: impl Future<Output = T>) -> Option<T> {
    let over = async {
        late.await;
        None
    };
    async { Some(future.await) }.or(over).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_takes_too_long_is_given_up() {
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(600));
        assert_eq!(smol::block_on(within(short, pending::<()>())), None);
        assert_eq!(smol::block_on(within(long, spawn(async { 7 }))), Some(7));
    }

    #[test]
    fn turns_share_one_timer() {
        smol::block_on(async {
            let mut late = Timer::after(Duration::ZERO);
            assert_eq!(before(&mut late, async { 7 }).await, Some(7), "what is ready comes first");
            assert_eq!(before(&mut late, pending::<()>()).await, None);
        });
    }
}
