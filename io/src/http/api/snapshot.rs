//! `/v1/snapshot`: everything as an archive, and back.
//!
//! - Source: http-api.md §17.
//! - A backup is read from its server block by block into a file, and packed into a second one
//!   before the first byte of the answer leaves: a failure is an answer, not a broken body.
//! - A restore begins once the whole archive has been verified, so that a damaged one changes
//!   nothing; its blocks then go through the log as writes.

use super::*;
use crate::archive::{self, ArchiveError, FileError, Spool};
use crate::entropy;
use crate::http::file::FileBody;
use smol::Timer;
use std::io;
use std::time::Duration;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::restore::{RestoreBlock, RestoreCommit};
use terraform_core::id::RestoreId;
use terraform_core::node::request::{
    BackupBlock, BackupId, BackupOpened, BackupRead, BackupReply, BackupRequest,
};

/// How often a block is offered where too many requests are sent, and the pauses in between.
const OFFERS: usize = 50;
const OFFER_PAUSE: Duration = Duration::from_millis(100);

impl Api {
    pub(super) async fn snapshot(&self, request: &ApiRequest<'_>) -> Handled {
        if request.timed.head.method == Method::Put {
            self.restore_snapshot(request).await
        } else {
            self.save_snapshot(request).await
        }
    }

    async fn save_snapshot(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::read(request, Reads::default())?.context;
        let target = self.files.begin().await.map_err(|error| refused(&error))?;
        let failed = |error| Reply::error(&error);
        let opened = match self.backup(&context, BackupRequest::Open).await {
            Ok(BackupReply::Opened(opened)) => *opened,
            Ok(BackupReply::Block(_)) => return Err(failed(other_answer())),
            Err(error) => return Err(failed(error)),
        };
        let saved = self.save(&context, &opened, &target).await;
        let close = RequestBody::Backup(BackupRequest::Close(opened.backup));
        // One that is not closed is forgotten a minute later.
        let _ = self.done(context.clone(), close).await;
        saved?;
        Ok(Reply::file(target).with_meta(Meta {
            index: opened.index.get().max(1),
            known_leader: opened.known_leader,
            last_contact: opened.last_contact,
            consistency: None,
        }))
    }

    /// Writes the archive of an open backup to `target`.
    async fn save(
        &self,
        context: &RequestContext,
        opened: &BackupOpened,
        target: &FileBody,
    ) -> Result<(), Reply> {
        let broken = |error| refused(&error);
        let folder = self.files.folder().to_owned();
        let begun = smol::unblock(move || Spool::new(archive::scratch(&folder)?)).await;
        let mut spool = begun.map_err(broken)?;
        for number in 0.. {
            let block = self.block(context, opened.backup, number).await;
            let BackupBlock { data, last } = block.map_err(|error| Reply::error(&error))?;
            let put = smol::unblock(move || spool.block(&data).map(|()| spool)).await;
            spool = put.map_err(broken)?;
            if last {
                break;
            }
        }
        let wall = self.node.clock().wall();
        let meta = archive::Meta::new(opened, wall, spool.bytes());
        let target = target.clone();
        let packed =
            smol::unblock(move || archive::write(target.file(), &meta, spool, wall).map(drop));
        packed.await.map_err(broken)
    }

    async fn block(
        &self,
        context: &RequestContext,
        backup: BackupId,
        block: u64,
    ) -> Result<BackupBlock, RequestError> {
        match self.backup(context, BackupRequest::Read(BackupRead { backup, block })).await? {
            BackupReply::Block(block) => Ok(block),
            BackupReply::Opened(_) => Err(other_answer()),
        }
    }

    async fn backup(
        &self,
        context: &RequestContext,
        wanted: BackupRequest,
    ) -> Result<BackupReply, RequestError> {
        let (context, body) = (context.clone(), RequestBody::Backup(wanted));
        let response = self.node.request(Request { context, body }).await?;
        let Response::Backup(reply) = response else { return Err(other_answer()) };
        Ok(reply)
    }

    async fn restore_snapshot(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        let refuse = |error: ArchiveError| Reply::text(500, error.to_string());
        let Some(file) = request.file else {
            return Err(archive::verify(io::empty()).map_or_else(refuse, |_| Reply::empty()));
        };
        let source = file.reader();
        smol::unblock(move || archive::verify(source)).await.map_err(refuse)?;
        let random = entropy::identity().map_err(|error| refused(&error))?;
        let restore = RestoreId::from_random(random);
        let restored = self.restore(&context, restore, file).await;
        if restored.is_err() {
            // What is under way nobody goes on with; another restore replaces it, too.
            let _ = self.change(&context, Command::RestoreAbort(restore)).await;
        }
        restored.map(|()| Reply::empty())
    }

    /// Sends the blocks of an archive that was verified, then has them take effect.
    async fn restore(
        &self,
        context: &RequestContext,
        restore: RestoreId,
        file: &FileBody,
    ) -> Result<(), Reply> {
        let failed = |error: RequestError| Reply::error(&error);
        let (sender, blocks) = smol::channel::bounded(1);
        let source = file.reader();
        let reading = smol::unblock(move || {
            archive::read(source, |block| {
                let sent = sender.send_blocking(Bytes::copy_from_slice(block));
                sent.map_err(|_| FileError::Abandoned)
            })
        });
        let mut number = 0;
        while let Ok(block) = blocks.recv().await {
            let block = RestoreBlock { restore, number, block };
            self.change(context, Command::RestoreBlock(block)).await.map_err(failed)?;
            number += 1;
        }
        reading.await.map_err(|error| Reply::text(500, error.to_string()))?;
        let commit = RestoreCommit { restore, blocks: number };
        self.change(context, Command::RestoreCommit(commit)).await.map_err(failed)
    }

    /// Changes the catalog; where too many requests are sent it is asked for again.
    async fn change(&self, context: &RequestContext, command: Command) -> Result<(), RequestError> {
        for _ in 1..OFFERS {
            let body = RequestBody::Write(command.clone());
            match self.done(context.clone(), body).await {
                Err(RequestError::Overloaded(_) | RequestError::RateExceeded) => {
                    Timer::after(OFFER_PAUSE).await;
                }
                result => return result,
            }
        }
        self.done(context.clone(), RequestBody::Write(command)).await
    }
}

/// What the disk or the bound on files refused.
fn refused(error: &io::Error) -> Reply {
    let status = if error.kind() == io::ErrorKind::ResourceBusy { 503 } else { 500 };
    Reply::text(status, format!("snapshot: {error}"))
}
