//! One connection: reads, has commands carried out, and writes, all in one task.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    client::Client,
    request::{Decoder, Violation},
    shared::Shared,
};
use crate::tls::ClientNames;
use crate::traffic::{Ticket, Traffic};
use gaocache_core::error::Result;

/// Bytes of one read, and what a connection keeps for the next.
const READ_BYTES: usize = 16 << 10;
/// Other connections get their turn after so many reads.
const READS_IN_A_ROW: usize = 8;
/// How long a client that broke the protocol may take to see why.
const LINGER: Duration = Duration::from_secs(1);
/// What is read from it meanwhile, at most.
const LINGER_BYTES: usize = 1 << 20;

/// A connection to a client; done when it may be closed.
#[must_use = "it does nothing unless it is polled"]
pub struct Connection<S> {
    socket: S,
    traffic: Arc<Traffic>,
    client: Client,
    incoming: Incoming,
    stage: Stage,
}

/// Bytes that have come, and the commands in them.
struct Incoming {
    bytes: BytesMut,
    decoder: Decoder,
    /// Whether the bytes hold no further whole command.
    starved: bool,
    /// Counts the bytes of a command that is larger than a read.
    ticket: Option<Ticket>,
    /// When the rest of a command has to be there.
    due: Option<Pin<Box<Sleep>>>,
    most_arguments: usize,
    patience: Duration,
}

enum Stage {
    Open,
    /// No more is read: the client has no more to say, or the node stops.
    Finishing,
    /// The client broke the protocol. A close with bytes unread would destroy the answer that
    /// tells so, before the client has seen it.
    Broken,
    Lingering(Pin<Box<Sleep>>, usize),
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(
        shared: &Arc<Shared>,
        socket: S,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        from: SocketAddr,
    ) -> Self {
        let rules = **shared.rules.load();
        Self {
            socket,
            client: Client::new(shared, names, traffic.clone(), from),
            traffic,
            incoming: Incoming {
                bytes: BytesMut::new(),
                decoder: Decoder::default(),
                starved: true,
                ticket: None,
                due: None,
                most_arguments: rules.max_keys.saturating_add(1),
                patience: rules.patience,
            },
            stage: Stage::Open,
        }
    }

    /// Answers what has come, and ends.
    pub fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.get_mut();
        if matches!(this.stage, Stage::Open) {
            this.stage = Stage::Finishing;
        }
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut reads = 0;
        loop {
            self.take_commands();
            // After the commands: a load that nobody polled would wake nobody.
            self.client.poll(cx);
            ready!(self.client.output.poll_write(&mut self.socket, cx))?;
            self.client.rests();
            let has_commands = self.client.has_room() && !self.incoming.starved;
            if has_commands || self.client.has_answers() {
                continue;
            }
            if self.client.is_done() {
                match self.stage {
                    Stage::Broken | Stage::Lingering(..) => return self.poll_linger(cx),
                    Stage::Open if !self.client.ends => {}
                    // Over TLS, an end without a goodbye looks like an attack.
                    Stage::Open | Stage::Finishing => {
                        return Pin::new(&mut self.socket).poll_shutdown(cx);
                    }
                }
            }
            if !self.client.has_room() || !matches!(self.stage, Stage::Open) {
                // A load wakes the task.
                return Poll::Pending;
            }
            if reads == READS_IN_A_ROW {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            ready!(self.poll_read(cx))?;
        }
    }

    fn take_commands(&mut self) {
        let Self {
            incoming, client, ..
        } = self;
        let mut taken = 0;
        client.begins();
        while client.has_room() {
            let rest = &incoming.bytes[taken..];
            match incoming.decoder.next(rest, incoming.most_arguments) {
                Ok(Some(length)) => {
                    client.take(incoming.decoder.arguments(&rest[..length]));
                    taken += length;
                }
                Ok(None) => {
                    incoming.starved = true;
                    break;
                }
                Err(violation) => {
                    client.violates(violation);
                    self.stage = Stage::Broken;
                    break;
                }
            }
        }
        if taken > 0 {
            client.count();
            incoming.took(taken);
        }
    }

    /// Reads what there is; the end is noted as the stage.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(error) = self.incoming.make_room(&self.traffic) {
            self.client.refuses(&error);
            self.stage = Stage::Broken;
            return Poll::Ready(Ok(()));
        }
        let read = pin!(self.socket.read_buf(&mut self.incoming.bytes)).poll(cx)?;
        match read {
            Poll::Ready(0) => self.stage = Stage::Finishing,
            Poll::Ready(_) => self.incoming.starved = false,
            Poll::Pending => {
                ready!(self.incoming.poll_due(cx));
                let what = "the rest of a command did not come in time \
                            (limits.read_timeout_seconds)";
                self.client.violates(Violation(what.into()));
                self.stage = Stage::Broken;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.stage, Stage::Broken) {
            self.stage = Stage::Lingering(Box::pin(sleep(LINGER)), LINGER_BYTES);
        }
        let Stage::Lingering(over, left) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let socket = &mut self.socket;
        // Fails where the client has closed it already.
        let _ = ready!(Pin::new(&mut *socket).poll_shutdown(cx));
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut scrap))?;
            let read = scrap.filled().len();
            match left.checked_sub(read) {
                Some(rest) if read > 0 => *left = rest,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S> Future for Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_whole(cx)
    }
}

impl Incoming {
    /// So many bytes of commands are done with.
    fn took(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.due = None;
        if self.bytes.is_empty() {
            self.ticket = None;
            if self.bytes.capacity() > 2 * READ_BYTES {
                self.bytes = BytesMut::new();
            }
        }
    }

    /// Makes room for a read. Only what has come makes it larger, never what was announced.
    fn make_room(&mut self, traffic: &Arc<Traffic>) -> Result<()> {
        if self.bytes.len() >= READ_BYTES {
            let ticket = match &mut self.ticket {
                Some(ticket) => ticket,
                none => none.insert(traffic.begin()?),
            };
            ticket.charge(READ_BYTES)?;
        }
        self.bytes.reserve(READ_BYTES);
        Ok(())
    }

    /// Ready when the rest of a command is overdue.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.is_empty() {
            return Poll::Pending;
        }
        let patience = self.patience;
        let due = self.due.get_or_insert_with(|| Box::pin(sleep(patience)));
        due.as_mut().poll(cx)
    }
}
