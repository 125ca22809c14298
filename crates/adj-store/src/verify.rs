//! Walks a log and says whether it is what was written.

use crate::{
    error::{StoreError, VerifyError},
    limits,
    store::Store,
};
use adj_domain::{ChainBreak, ChainHash, ChainVerifier, LogId, Seq};

/// What a whole log ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub head: Seq,
    pub hash: ChainHash,
}

/// Checks every event against the chain, and the end of the chain against the head that the store remembers.
///
/// This finds what changed in the stored file. Somebody who may rewrite the whole file, heads included, is found only by
/// comparing the returned hash with one that was kept elsewhere.
pub async fn verify(store: &dyn Store, log: &LogId) -> Result<Verified, VerifyError> {
    let unknown = || StoreError::UnknownLog { log: log.clone() };
    let summary = store.log(log).await?.ok_or_else(unknown)?;
    let mut verifier = ChainVerifier::new(log.clone());
    let mut end = Verified { head: 0, hash: ChainHash::start(log) };
    'pages: loop {
        let page = store.read(log, end.head, limits::PAGE_EVENTS).await?;
        if page.is_empty() {
            break;
        }
        for event in &page {
            verifier.check(event)?;
            end = Verified { head: event.seq, hash: event.hash };
            if event.seq == summary.head {
                break 'pages;
            }
        }
    }
    verifier.finish(summary.head)?;
    if end.hash != summary.head_hash {
        return Err(VerifyError::Chain(ChainBreak::Changed {
            log: log.clone(),
            seq: end.head,
            expected: summary.head_hash,
            found: end.hash,
        }));
    }
    // Events that were written while we walked are fine; events that no head knows of are not.
    if let Some(extra) = store.read(log, end.head, 1).await?.first() {
        let head = store.log(log).await?.ok_or_else(unknown)?.head;
        if extra.seq > head {
            return Err(VerifyError::Chain(ChainBreak::TailMissing {
                log: log.clone(),
                expected: head,
                found: extra.seq,
            }));
        }
    }
    Ok(end)
}
