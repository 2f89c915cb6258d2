//! Members and tokens as bytes.

use overway_wire::RelayId;
use prost::Message;

use super::super::{Member, StoreError, Token, TokenUse, UnixSeconds};

#[derive(Clone, PartialEq, Message)]
struct MemberRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    revoked: bool,
    #[prost(uint64, tag = "3")]
    created: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TokenRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    expires: u64,
    #[prost(message, optional, tag = "3")]
    used: Option<UseRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct UseRecord {
    #[prost(uint32, tag = "1")]
    relay: u32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    at: u64,
}

pub(super) fn encode_member(member: &Member) -> Vec<u8> {
    let record = MemberRecord {
        name: member.name.clone(),
        revoked: member.revoked,
        created: member.created.0,
    };
    record.encode_to_vec()
}

pub(super) fn decode_member(id: RelayId, bytes: &[u8]) -> Result<Member, StoreError> {
    let record = MemberRecord::decode(bytes).map_err(|_| StoreError::Unreadable("member"))?;
    let created = UnixSeconds(record.created);
    Ok(Member { id, name: record.name, revoked: record.revoked, created })
}

pub(super) fn encode_token(token: &Token) -> Vec<u8> {
    let used = token.used.map(|used| UseRecord {
        relay: u32::from(used.relay.0),
        key: used.key.to_vec(),
        at: used.at.0,
    });
    TokenRecord { name: token.name.clone(), expires: token.expires.0, used }.encode_to_vec()
}

pub(super) fn decode_token(bytes: &[u8]) -> Result<Token, StoreError> {
    let unreadable = || StoreError::Unreadable("token");
    let record = TokenRecord::decode(bytes).map_err(|_| unreadable())?;
    let used = match record.used {
        None => None,
        Some(used) => Some(TokenUse {
            relay: RelayId(u16::try_from(used.relay).map_err(|_| unreadable())?),
            key: used.key.try_into().map_err(|_| unreadable())?,
            at: UnixSeconds(used.at),
        }),
    };
    Ok(Token { name: record.name, expires: UnixSeconds(record.expires), used })
}
