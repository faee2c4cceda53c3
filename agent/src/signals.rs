//! Signals from the operating system as a stream of wishes.

use async_signal::{Signal, Signals};
use smol::stream::StreamExt as _;
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

impl Wish {
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
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGUSR1. SIGPIPE is ignored by the runtime of the
    /// language.
    pub(crate) fn watch() -> std::io::Result<Self> {
        Signals::new([Signal::Int, Signal::Term, Signal::Hup, Signal::Usr1]).map(Self)
    }

    /// Waits for the next one; a failing source ends in an endless wait, since no signal is lost
    /// by that which could have been had.
    pub(crate) async fn next(&mut self) -> Wish {
        loop {
            match self.0.next().await {
                Some(Ok(Signal::Int)) => return Wish::Interrupt,
                Some(Ok(Signal::Term)) => return Wish::Terminate,
                Some(Ok(Signal::Hup)) => return Wish::Reload,
                Some(Ok(Signal::Usr1)) => return Wish::Dump,
                Some(_) => {}
                None => smol::future::pending::<()>().await,
            }
        }
    }
}
