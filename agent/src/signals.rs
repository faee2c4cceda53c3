//! Signals from the operating system as a stream of wishes.

use async_signal::{Signal, Signals};
use smol::stream::StreamExt as _;
use terraform_io::process_one::Worker;
use terraform_io::program;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Dump,
}

/// The signals that the agent acts on. SIGPIPE is ignored by the runtime of the language.
const WISHES: [(Signal, Wish); 4] = [
    (Signal::Int, Wish::Interrupt),
    (Signal::Term, Wish::Terminate),
    (Signal::Hup, Wish::Reload),
    (Signal::Usr1, Wish::Dump),
];

impl Wish {
    /// What a signal asks for; nothing if the agent does not act on it.
    fn of(signal: Signal) -> Option<Self> {
        WISHES.iter().find(|(known, _)| *known == signal).map(|(_, wish)| *wish)
    }

    /// The signal that says the same to another program.
    pub(crate) const fn signal(self) -> program::Signal {
        match self {
            Self::Interrupt => program::Signal::Interrupt,
            Self::Terminate => program::Signal::Terminate,
            Self::Reload => program::Signal::Hangup,
            Self::Dump => program::Signal::User1,
        }
    }
}

/// The signals that arrive from now on.
pub(crate) struct Wishes(Signals);

impl Wishes {
    /// Takes over what the agent acts on.
    pub(crate) fn watch() -> std::io::Result<Self> {
        Signals::new(WISHES.map(|(signal, _)| signal)).map(Self)
    }

    /// Waits for the next one; a failing source ends in an endless wait, since no signal is lost
    /// by that which could have been had.
    pub(crate) async fn next(&mut self) -> Wish {
        loop {
            match self.0.next().await {
                Some(signal) => {
                    if let Some(wish) = signal.ok().and_then(Wish::of) {
                        return wish;
                    }
                }
                None => smol::future::pending::<()>().await,
            }
        }
    }
}

/// Runs this program once more below this process, the first one of its container: passes on the
/// signals it acts on and takes the end of every orphan, until it ends with the code that is
/// returned.
pub(crate) fn guard() -> std::io::Result<u8> {
    // Before the start: what arrives until then waits here, since process 1 has no other handlers.
    let mut signals =
        Signals::new(WISHES.map(|(signal, _)| signal).into_iter().chain([Signal::Child]))?;
    let worker = Worker::start()?;
    smol::block_on(async {
        loop {
            if let Some(code) = worker.reap()? {
                return Ok(code);
            }
            if let Some(wish) = signals.next().await.transpose()?.and_then(Wish::of) {
                worker.signal(wish.signal());
            }
        }
    })
}
