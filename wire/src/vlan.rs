//! VLAN tags: IEEE 802.1Q, 802.1ad (QinQ) and the service tags that came before it.

use crate::Skip;
use crate::ethernet::ethertype;

/// Length of one tag behind the type field that announces it.
pub const TAG_LEN: usize = 4;

/// True for the types that announce a tag.
#[inline]
pub const fn is_tag(ether_type: u16) -> bool {
    matches!(
        ether_type,
        ethertype::VLAN | ethertype::SERVICE_VLAN | 0x9100 | 0x9200 | 0x9300
    )
}

/// A tag: its control information and the type of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    control: u16,
    inner: u16,
}

impl Tag {
    /// Checks that the tag is complete.
    #[inline]
    pub fn new_checked(bytes: &[u8]) -> Result<Self, Skip> {
        let b = bytes.first_chunk::<TAG_LEN>().ok_or(Skip::TooShort)?;
        Ok(Self {
            control: u16::from_be_bytes([b[0], b[1]]),
            inner: u16::from_be_bytes([b[2], b[3]]),
        })
    }

    /// The VLAN identifier, 12 bits; 0 for a tag that only carries a priority.
    #[inline]
    pub const fn id(&self) -> u16 {
        self.control & 0x0fff
    }

    /// The priority code point, 3 bits.
    #[inline]
    pub const fn priority(&self) -> u8 {
        (self.control >> 13) as u8
    }

    /// The type of what follows the tag.
    #[inline]
    pub const fn inner(&self) -> u16 {
        self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let t = Tag::new_checked(&[0xaf, 0xff, 0x08, 0x00]).unwrap();
        assert_eq!((t.id(), t.priority(), t.inner()), (0xfff, 5, 0x0800));
        assert_eq!(Tag::new_checked(&[0, 0, 0]), Err(Skip::TooShort));
        assert!(
            is_tag(0x88a8)
                && ethertype::OLD_SERVICE_VLANS.into_iter().all(is_tag)
                && !is_tag(0x0800)
        );
    }
}
