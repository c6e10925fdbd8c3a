//! A request, or a part of an answer, as it is counted: its bytes against the budget, its progress
//! at its connection.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::{
    budget::{Held, NEVER_REFUSED, Pinned, REQUEST_BYTES},
    connection::Traffic,
};
use gaocache_core::error::Result;

impl Traffic {
    /// A request begins.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if too many bytes are in flight at this
    /// node; [`TooManyRequests`](gaocache_core::ErrorKind::TooManyRequests) if the client has too
    /// many open.
    pub fn begin(self: &Arc<Self>) -> Result<Ticket> {
        if let Some(client) = self.client() {
            client.begins()?;
        }
        let taken = self.budget().take(REQUEST_BYTES);
        taken.inspect_err(|_| self.client_s_request_ends())?;
        Ok(Ticket::request(self))
    }

    /// A request begins that must be heard however many bytes are in flight.
    pub fn begin_anyway(self: &Arc<Self>) -> Ticket {
        if let Some(client) = self.client() {
            client.begins_anyway();
        }
        self.budget().take_anyway(REQUEST_BYTES);
        Ticket::request(self)
    }

    fn client_s_request_ends(&self) {
        if let Some(client) = self.client() {
            client.ends();
        }
    }

    /// Counts bytes of a request that is under way.
    ///
    /// # Errors
    /// As [`Ticket::charge`].
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Ticket> {
        let mut part = Ticket::part(self);
        part.charge(bytes)?;
        Ok(part)
    }

    /// Counts answers of so many bytes that wait to be sent.
    ///
    /// # Errors
    /// As [`Ticket::charge`], which few bytes never meet.
    pub fn wait(self: &Arc<Self>, bytes: usize) -> Result<Ticket> {
        let mut part = Ticket::part(self);
        if bytes <= NEVER_REFUSED {
            self.budget().take_anyway(bytes as u64);
            part.charged = bytes as u64;
        } else {
            part.charge(bytes)?;
        }
        Ok(part)
    }

    /// The value, counted until its last clone is dropped.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for it.
    pub fn hold(self: &Arc<Self>, value: Bytes) -> Result<Bytes> {
        if value.is_empty() {
            return Ok(value);
        }
        let mut part = Ticket::part(self);
        part.pin(&value)?;
        Ok(part.hold(value))
    }
}

/// A request, from its head to the last byte of its answer; or a part of an answer.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    traffic: Arc<Traffic>,
    /// Whether it is a request, which keeps its connection from being idle.
    request: bool,
    charged: u64,
    pinned: Option<Pinned>,
    /// The step of its last progress, once it is being sent.
    sending: Option<usize>,
}

impl Ticket {
    /// A part of an answer over this connection.
    pub(super) fn part(traffic: &Arc<Traffic>) -> Self {
        Self {
            traffic: traffic.clone(),
            request: false,
            charged: 0,
            pinned: None,
            sending: None,
        }
    }

    /// A request, whose bytes the budget has counted.
    fn request(traffic: &Arc<Traffic>) -> Self {
        traffic.request_begins();
        let mut ticket = Self::part(traffic);
        ticket.request = true;
        ticket.charged = REQUEST_BYTES;
        ticket
    }

    /// The connection.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Counts further bytes.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for them.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.traffic.budget().take(bytes as u64)?;
        self.charged += bytes as u64;
        Ok(())
    }

    /// Gives back what [`Ticket::charge`] took.
    pub(super) fn discharge(&mut self, bytes: usize) {
        self.charged -= bytes as u64;
        self.traffic.budget().give_back(bytes as u64);
    }

    /// Counts the value that the answer pins: a large one once for all answers that share it.
    ///
    /// # Errors
    /// As [`Ticket::charge`].
    pub fn pin(&mut self, value: &Bytes) -> Result<()> {
        debug_assert!(self.pinned.is_none());
        self.pinned = Some(self.traffic.budget().pin(value)?);
        Ok(())
    }

    /// The answer is being sent, and has just made progress: from now on, the client has the write
    /// time limit to take more.
    pub fn advances(&mut self) {
        let step = self.traffic.step();
        if self.sending == Some(step) {
            return;
        }
        self.rests();
        self.sending = Some(step);
        self.traffic.sending(step).fetch_add(1, Ordering::Relaxed);
    }

    /// There is nothing to send at the moment: the client has all that there is.
    pub(super) fn rests(&mut self) {
        if let Some(step) = self.sending.take() {
            self.traffic.sending(step).fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// These bytes, which end the ticket when they have been sent or given up. h2 and hyper drop
    /// them only then, long after the body itself.
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held {
            _counted: self,
            bytes,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.rests();
        if self.request {
            self.traffic.request_ends();
            self.traffic.client_s_request_ends();
        }
        if self.charged > 0 {
            self.traffic.budget().give_back(self.charged);
        }
        if let Some(pinned) = self.pinned {
            self.traffic.budget().unpin(pinned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Budget;

    #[test]
    fn what_an_answer_pins_is_given_back_with_its_last_byte() {
        let traffic = Traffic::new(Budget::new(1 << 20));
        let mut ticket = traffic.begin().expect("room");
        ticket.charge(100).expect("room");
        ticket.pin(&Bytes::from_static(b"value")).expect("room");
        ticket.advances();
        let bytes = ticket.hold("value");
        let end = bytes.slice(4..);
        drop(bytes);
        assert_eq!(traffic.budget().used(), REQUEST_BYTES + 105);
        drop(end);
        assert_eq!(traffic.budget().used(), 0);
        assert!(traffic.begin().is_ok());
    }
}
