//! Ranges of addresses, as far as two of them have to be brought together.

use std::{fmt, net::IpAddr, str::FromStr};

/// An address with the number of its leading bits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressRange {
    first: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// What both hold: of two ranges either one lies in the other, or they have nothing in common.
    pub fn common(self, other: Self) -> Option<Self> {
        let (wide, narrow) = if self.bits <= other.bits { (self, other) } else { (other, self) };
        let is_inside = wide.first.is_ipv4() == narrow.first.is_ipv4() && masked(narrow.first, wide.bits) == wide.first;
        is_inside.then_some(narrow)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for AddressRange {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits = match bits {
            None => width(address),
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| ())?,
            Some(_) => return Err(()),
        };
        if bits > width(address) || masked(address, bits) != address {
            return Err(());
        }
        Ok(Self { first: address, bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.bits == width(self.first) { Ok(()) } else { write!(f, "/{}", self.bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_in_common_what_lies_in_both() {
        let cases = [
            ("10.0.0.0/8", "10.1.2.3", Some("10.1.2.3")),
            ("10.1.2.3", "10.0.0.0/8", Some("10.1.2.3")),
            ("10.0.0.0/8", "10.1.0.0/16", Some("10.1.0.0/16")),
            ("10.0.0.0/8", "11.0.0.0/8", None),
            ("0.0.0.0/0", "10.1.2.3", Some("10.1.2.3")),
            ("0.0.0.0/0", "::1", None),
            ("fd00::/8", "fd12::1", Some("fd12::1")),
            ("::/0", "10.1.2.3", None),
            ("::1", "::1", Some("::1")),
        ];
        for (one, other, expected) in cases {
            let one: AddressRange = one.parse().expect("the range is good");
            let other: AddressRange = other.parse().expect("the range is good");
            assert_eq!(one.common(other).map(|range| range.to_string()).as_deref(), expected, "{one} {other}");
        }
        for bad in ["10.1", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "::1/129", "host", "", "[::1]"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad:?}");
        }
    }
}
