//! ARP for IPv4 over Ethernet (RFC 826).

use crate::{Addr, Skip};

/// Length of a message.
pub const LEN: usize = 28;

/// What a message asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// A message of the form that Ethernet and IPv4 give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: [u8; 6],
    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    pub sender: Addr,
    /// The target's Ethernet address; without meaning in a request.
    pub target_mac: [u8; 6],
    /// The address that is asked for.
    pub target: Addr,
}

impl Message {
    /// Reads a message. Other hardware types, protocols and operations are [`Skip::NotIp`].
    pub fn new_checked(bytes: &[u8]) -> Result<Self, Skip> {
        let b = bytes.first_chunk::<LEN>().ok_or(Skip::TooShort)?;
        let operation = match b[..8] {
            [0, 1, 8, 0, 6, 4, 0, 1] => Operation::Request,
            [0, 1, 8, 0, 6, 4, 0, 2] => Operation::Reply,
            _ => return Err(Skip::NotIp),
        };
        Ok(Self {
            operation,
            sender_mac: [b[8], b[9], b[10], b[11], b[12], b[13]],
            sender: Addr::v4([b[14], b[15], b[16], b[17]]),
            target_mac: [b[18], b[19], b[20], b[21], b[22], b[23]],
            target: Addr::v4([b[24], b[25], b[26], b[27]]),
        })
    }

    /// The bytes of the message.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let op = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut b = [0; LEN];
        b[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, op]);
        b[8..14].copy_from_slice(&self.sender_mac);
        b[14..18].copy_from_slice(&self.sender.v4_bytes());
        b[18..24].copy_from_slice(&self.target_mac);
        b[24..28].copy_from_slice(&self.target.v4_bytes());
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for operation in [Operation::Request, Operation::Reply] {
            let m = Message {
                operation,
                sender_mac: [2, 0, 0, 0, 0, 1],
                sender: Addr::v4([10, 0, 0, 1]),
                target_mac: [2, 0, 0, 0, 0, 2],
                target: Addr::v4([10, 0, 0, 2]),
            };
            assert_eq!(Message::new_checked(&m.to_bytes()), Ok(m));
            assert_eq!(
                Message::new_checked(&m.to_bytes()[..27]),
                Err(Skip::TooShort)
            );
            let mut other = m.to_bytes();
            other[7] = 3;
            assert_eq!(Message::new_checked(&other), Err(Skip::NotIp));
        }
    }
}
