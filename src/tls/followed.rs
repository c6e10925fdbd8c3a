//! Files that are polled for changes, and the value that is built from them. What has changed in
//! them counts from the next connection on, and those before it learn of the change.
//!
//! Files that can't be used must not end what works: what they had before stays in use.

#[cfg(feature = "cli")]
use std::path::PathBuf;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

#[cfg(feature = "cli")]
use super::pem_file::Has;
use super::{
    pem::Life,
    pem_file::{Content, PemFile},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// How often the files are read.
const PAUSE: Duration = Duration::from_secs(1);

/// What has become of the files, for metrics.
#[derive(Clone, Copy, Debug)]
pub enum Observed<L = Life> {
    /// They are in use; a listener's certificate is good for so long.
    InUse(L),
    /// What they have now can't be used.
    Unusable,
}

/// Is told what has become of the files.
pub type Observer<L = Life> = Arc<dyn Fn(Observed<L>) + Send + Sync>;

/// What the files say now.
/// `L` is what the observer learns of it.
pub(crate) struct Followed<T, L = Life> {
    /// Whose they are: a listener, or `origin`.
    listener: &'static str,
    files: Vec<Arc<PemFile>>,
    make: Box<Make<T, L>>,
    current: ArcSwap<Current<T, L>>,
    changed: watch::Sender<()>,
    observer: Observer<L>,
}

/// Makes something of the files' contents, in the order of the files.
type Make<T, L> = dyn Fn(&[Content]) -> Result<(T, L)> + Send + Sync;

struct Current<T, L> {
    contents: Vec<Content>,
    made: Arc<T>,
    life: L,
}

impl<T: Send + Sync + 'static, L: Copy + Send + Sync + 'static> Followed<T, L> {
    /// Reads the files, and follows them on the current runtime for as long as somebody needs them.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(super) fn start(
        listener: &'static str,
        files: Vec<Arc<PemFile>>,
        make: impl Fn(&[Content]) -> Result<(T, L)> + Send + Sync + 'static,
        observer: Observer<L>,
    ) -> Result<Arc<Self>> {
        let contents = read(&files)?;
        let (made, life) = make(&contents)?;
        observer(Observed::InUse(life));
        let this = Arc::new(Self {
            listener,
            files,
            make: Box::new(make),
            current: ArcSwap::from_pointee(Current {
                contents,
                made: Arc::new(made),
                life,
            }),
            changed: watch::Sender::new(()),
            observer,
        });
        tokio::spawn(Self::follow(Arc::downgrade(&this)));
        Ok(this)
    }

    /// For a connection that is made now.
    pub(crate) fn now(&self) -> Arc<T> {
        self.current.load().made.clone()
    }

    /// Tells of what changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    async fn follow(this: Weak<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(this) = this.upgrade() else { return };
            let (looking, listener) = (this.clone(), this.listener);
            let looked = tokio::task::spawn_blocking(move || looking.look()).await;
            let looked = looked.unwrap_or_else(|error| {
                let what = format!("reading them failed, a bug in gaocache: {error}");
                Err(Error::new(ErrorKind::Internal, what).with_source(error))
            });
            match looked {
                Ok(false) if told.is_none() => {}
                Ok(changed) => {
                    told = None;
                    (this.observer)(Observed::InUse(this.current.load().life));
                    if changed {
                        tracing::info!(listener, "loaded new certificates");
                    }
                }
                Err(error) => {
                    let what = error.to_string();
                    (this.observer)(Observed::Unusable);
                    if told.as_ref() != Some(&what) {
                        tracing::warn!(
                            listener,
                            error = what,
                            "new certificates can't be used; what the files had before stays in use"
                        );
                        told = Some(what);
                    }
                }
            }
        }
    }

    /// Applies what has changed. Returns whether something has.
    fn look(&self) -> Result<bool> {
        let contents = read(&self.files)?;
        let texts = contents.iter().map(|it| &it.text);
        if texts.eq(self.current.load().contents.iter().map(|it| &it.text)) {
            return Ok(false);
        }
        let (made, life) = (self.make)(&contents)?;
        self.current.store(Arc::new(Current {
            contents,
            made: Arc::new(made),
            life,
        }));
        self.changed.send_replace(());
        Ok(true)
    }
}

fn read(files: &[Arc<PemFile>]) -> Result<Vec<Content>> {
    files.iter().map(PemFile::read).collect()
}

#[cfg(feature = "cli")]
impl<T: Send + Sync + 'static> Followed<T, ()> {
    /// The same for the authorities of an origin, which are in one file.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) fn of_authorities(
        file: PathBuf,
        make: impl Fn(&[u8]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let file = PemFile::new("the origin".into(), Has::Authorities, file);
        let make = move |contents: &[Content]| {
            contents[0].authorities()?;
            Ok((make(&contents[0].text)?, ()))
        };
        Self::start("origin", vec![file], make, Arc::new(|_| {}))
    }
}
