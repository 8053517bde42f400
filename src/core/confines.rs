//! What confines a rule beside claims: databases, client addresses, kind of connection, time.

use std::net::IpAddr;

use rkyv::{Archive, Deserialize, Serialize};

use crate::decision::{Replication, Request};
use crate::limits;
use crate::row::{RowError, plain_list, shown};
use crate::rules::RuleRow;

/// The confines of one rule.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confines {
    /// None: all.
    databases: Option<Vec<String>>,
    /// None: all, Unix-domain sockets included.
    addresses: Option<Vec<Network>>,
    /// Only replication connections, only ordinary ones, or both.
    replication: Option<bool>,
    /// Microseconds since the Unix epoch; the first at which the rule counts.
    valid_from: i64,
    /// The first at which it does not count any more.
    pub(crate) valid_until: i64,
}

/// What keeps a rule from counting for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confine {
    Database,
    Address,
    Replication,
    NotYet,
    Over,
}

/// A block of addresses, as in the type `cidr`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
struct Network {
    /// IPv6; an IPv4 address stands in the first 4 bytes.
    six: bool,
    bytes: [u8; 16],
    bits: u8,
}

impl Confines {
    pub(crate) fn compile(row: &RuleRow) -> Result<Confines, RowError> {
        let (valid_from, valid_until) =
            (row.valid_from.unwrap_or(i64::MIN), row.valid_until.unwrap_or(i64::MAX));
        if valid_from >= valid_until {
            return Err(RowError::new("\"valid_until\" must be later than \"valid_from\"")
                .detail("The rule would never count.")
                .hint("Set \"enabled\" to false for a rule that is not to count."));
        }
        if row.replication.is_none() && row.effect == "allow" {
            return Err(RowError::new("\"replication\" of a rule that allows must be true or false")
                .detail("Null stands for both kinds of connection, and is for rules that deny.")
                .hint("Write one rule for replication connections and one for ordinary ones."));
        }
        Ok(Confines {
            databases: databases(row)?,
            addresses: addresses(row)?,
            replication: row.replication,
            valid_from,
            valid_until,
        })
    }
}

impl ArchivedConfines {
    /// The first that is not met. `deny`: the rule denies.
    pub(crate) fn unmet(&self, request: &Request<'_>, deny: bool) -> Option<Confine> {
        let database = |databases: &[rkyv::string::ArchivedString]| match request.replication {
            // It has no database and reads them all: more than one rule for some of them allows, and what one denies.
            Replication::Physical => deny,
            _ => databases.iter().any(|database| database.as_str() == request.database),
        };
        let address = |networks: &[ArchivedNetwork]| {
            request.address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
        };
        if !self.databases.as_ref().is_none_or(|databases| database(databases)) {
            Some(Confine::Database)
        } else if !self.addresses.as_ref().is_none_or(|networks| address(networks)) {
            Some(Confine::Address)
        } else {
            self.unmet_anywhere(request)
        }
    }

    /// Whether only database or address keep an ordinary rule from counting.
    pub(crate) fn unmet_here_alone(&self, request: &Request<'_>) -> bool {
        matches!(self.unmet(request, false), Some(Confine::Database | Confine::Address))
            && self.unmet_anywhere(request).is_none()
    }

    /// As [`Self::unmet`], for any database and any address.
    fn unmet_anywhere(&self, request: &Request<'_>) -> Option<Confine> {
        let replication = request.replication != Replication::None;
        if self.replication.as_ref().is_some_and(|only| *only != replication) {
            Some(Confine::Replication)
        } else if request.now < self.valid_from.to_native() {
            Some(Confine::NotYet)
        } else if request.now >= self.valid_until.to_native() {
            Some(Confine::Over)
        } else {
            None
        }
    }
}

impl Confine {
    /// What is not met, as the end of a sentence about the rule.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Confine::Database => "is not for this database",
            Confine::Address => "is not for this client address",
            Confine::Replication => "is not for this kind of connection",
            Confine::NotYet => "does not count yet (valid_from)",
            Confine::Over => "does not count any more (valid_until)",
        }
    }
}

impl Network {
    /// As `cidr` prints it.
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let (six, bytes) = octets(address.parse().ok()?);
        let most = if six { 128 } else { 32 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Network { six, bytes, bits })
    }
}

impl ArchivedNetwork {
    fn contains(&self, address: IpAddr) -> bool {
        let (six, bytes) = octets(address);
        let shift = 128_u32.saturating_sub(u32::from(self.bits));
        // A shift by all 128 bits is for /0, which contains every address.
        let head = |bytes: [u8; 16]| u128::from_be_bytes(bytes).checked_shr(shift).unwrap_or(0);
        six == self.six && head(bytes) == head(self.bytes)
    }
}

fn octets(address: IpAddr) -> (bool, [u8; 16]) {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, d] = four.octets();
            (false, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(six) => (true, six.octets()),
    }
}

fn databases(row: &RuleRow) -> Result<Option<Vec<String>>, RowError> {
    let Some(list) = &row.databases else {
        return Ok(None);
    };
    let databases = plain_list("databases", list, limits::DATABASES)?;
    if databases.is_empty() || databases.iter().any(String::is_empty) {
        return Err(RowError::new("\"databases\" must name at least one database, and none that is empty")
            .hint("Write null for all databases."));
    }
    Ok(Some(databases))
}

fn addresses(row: &RuleRow) -> Result<Option<Vec<Network>>, RowError> {
    let Some(list) = &row.addresses else {
        return Ok(None);
    };
    let addresses = plain_list("addresses", list, limits::ADDRESSES)?;
    if addresses.is_empty() {
        return Err(RowError::new("\"addresses\" must hold at least one network")
            .hint("Write null for all addresses, Unix-domain sockets included."));
    }
    let networks = addresses.iter().map(|text| {
        Network::parse(text)
            .ok_or_else(|| RowError::new(format!("\"addresses\" holds {}, which is no network", shown(text))))
    });
    networks.collect::<Result<_, _>>().map(Some)
}
