//! Turns a name into addresses, once.

use async_trait::async_trait;
use std::{collections::HashMap, io, net::IpAddr, sync::Mutex};

#[async_trait]
pub trait Resolve: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks whom the machine asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Which addresses a name had when it was first asked for: a later answer of the same server changes nothing.
pub(crate) struct Names {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
    most: usize,
}

/// More of one name's addresses are not looked at.
const MAX_ADDRESSES: usize = 16;

impl Names {
    pub(crate) fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    pub(crate) async fn resolve(&self, host: &str, resolver: &dyn Resolve) -> io::Result<Vec<IpAddr>> {
        if let Some(known) = self.lock().get(host) {
            return Ok(known.clone());
        }
        let mut found = resolver.resolve(host).await?;
        let mut seen = Vec::new();
        found.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                seen.len() <= MAX_ADDRESSES
            }
        });
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let mut known = self.lock();
        // Two may have asked at once; the first answer counts for both.
        if let Some(known) = known.get(host) {
            return Ok(known.clone());
        }
        if known.len() >= self.most {
            return Err(io::Error::other(format!("{} names were resolved already, which is the most", self.most)));
        }
        known.insert(host.to_owned(), found.clone());
        Ok(found)
    }

    /// Forgets a name none of whose addresses answers any more, so that a service that moved is found again.
    pub(crate) fn forget(&self, host: &str) {
        self.lock().remove(host);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<IpAddr>>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    /// Answers differently each time.
    #[derive(Default)]
    struct Changing(AtomicU8);

    #[async_trait]
    impl Resolve for Changing {
        async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            match host {
                "none.test" => Ok(Vec::new()),
                _ => Ok(vec![IpAddr::from([127, 0, 0, count]), IpAddr::from([127, 0, 0, count])]),
            }
        }
    }

    #[tokio::test]
    async fn the_first_answer_counts() {
        let resolver = Changing::default();
        let names = Names::new(2);
        let first = names.resolve("a.test", &resolver).await.expect("it has an address");
        assert_eq!(first, [IpAddr::from([127, 0, 0, 0])]);
        assert_eq!(names.resolve("a.test", &resolver).await.expect("it is known"), first);
        assert!(names.resolve("none.test", &resolver).await.is_err());
        names.resolve("b.test", &resolver).await.expect("there is room for two");
        assert!(names.resolve("c.test", &resolver).await.expect_err("it is full").to_string().contains("2 names"));
        names.forget("a.test");
        assert_ne!(names.resolve("a.test", &resolver).await.expect("it is asked again"), first);
    }
}
