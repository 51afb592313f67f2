//! A relay of UDP datagrams that a test can make deaf: for the gossip between processes.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Most bytes of a datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Passes datagrams on to one process, and its answers back to whoever asked. Ends with the
/// process that made it.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    ignored: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Relay {
    /// A relay in front of `target`.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to(target: SocketAddr) -> io::Result<Self> {
        let listening = UdpSocket::bind("127.0.0.1:0")?;
        let relay = Self {
            address: listening.local_addr()?,
            ignored: Arc::default(),
        };
        let ignored = Arc::clone(&relay.ignored);
        thread::spawn(move || {
            let mut datagram = [0; MAX_DATAGRAM_BYTES];
            // One for each who asks, so that answers find the way back.
            let mut ways: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            loop {
                let Ok((count, from)) = listening.recv_from(&mut datagram) else {
                    continue;
                };
                if is_in(&ignored, from) {
                    continue;
                }
                let way = match ways.get(&from) {
                    Some(way) => way,
                    None => match way_back(&listening, target, from, &ignored) {
                        Ok(way) => ways.entry(from).or_insert(way),
                        Err(_) => continue,
                    },
                };
                // Who is not there does not hear it.
                let _ = way.send(&datagram[..count]);
            }
        });
        Ok(relay)
    }

    /// Drops what comes from there, and what goes back, until [`Relay::hear`].
    pub fn ignore(&self, from: SocketAddr) {
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        ignored.insert(from);
    }

    /// Passes it on again.
    pub fn hear(&self, from: SocketAddr) {
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        ignored.remove(&from);
    }
}

fn is_in(ignored: &Mutex<HashSet<SocketAddr>>, from: SocketAddr) -> bool {
    let ignored = ignored.lock().unwrap_or_else(PoisonError::into_inner);
    ignored.contains(&from)
}

/// A socket whose answers from `target` go back to `from`.
fn way_back(
    listening: &UdpSocket,
    target: SocketAddr,
    from: SocketAddr,
    ignored: &Arc<Mutex<HashSet<SocketAddr>>>,
) -> io::Result<UdpSocket> {
    let way = UdpSocket::bind("127.0.0.1:0")?;
    way.connect(target)?;
    let (answers, listening, ignored) = (
        way.try_clone()?,
        listening.try_clone()?,
        Arc::clone(ignored),
    );
    thread::spawn(move || {
        let mut datagram = [0; MAX_DATAGRAM_BYTES];
        loop {
            // An error tells that the target was not there for an earlier one.
            if let Ok(count) = answers.recv(&mut datagram)
                && !is_in(&ignored, from)
            {
                let _ = listening.send_to(&datagram[..count], from);
            }
        }
    });
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_and_answers_pass_unless_they_are_ignored() {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::to(target.local_addr().unwrap()).unwrap();
        let [one, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut bytes = [0; 8];
        relay.ignore(one.local_addr().unwrap());
        one.send_to(b"one", relay.address).unwrap();
        other.send_to(b"other", relay.address).unwrap();
        let (count, way) = target.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"other");
        target.send_to(b"answer", way).unwrap();
        let (count, from) = other.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..count], from), (&b"answer"[..], relay.address));

        relay.hear(one.local_addr().unwrap());
        one.send_to(b"again", relay.address).unwrap();
        let (count, _) = target.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"again");
    }
}
