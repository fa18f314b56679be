//! To which gateway a data directory belongs.
//!
//! Promises: a directory is used under one `gateway.id` for ever. That id is
//! part of the name under which Kafka keeps how far the journal is forwarded
//! (`bridge/src/position.rs`): under another one the position would not be
//! found, and the whole journal sent a second time; a cloned disk that shared
//! the name would take another journal's position for its own and skip records.
//!
//! | key in the state database | value |
//! | --- | --- |
//! | `g/id` | version, 1 (1 byte), then the id of the gateway, UTF-8 |

use risiti_store::StoreError;
use risiti_store::state::{Batch, State};

const KEY: &[u8] = b"g/id";
const VERSION: u8 = 1;

/// The id of the gateway that used this state before, if it is not this one.
/// A new state is marked with this one.
///
/// # Errors
/// The state can't be read or written.
pub fn former_owner(state: &State, gateway_id: &str) -> Result<Option<String>, StoreError> {
    let row = match state.get(KEY) {
        Ok(row) => row,
        // It was reported; without it nobody can tell, and payments go on.
        Err(StoreError::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    match row.as_deref() {
        Some([VERSION, id @ ..]) if id == gateway_id.as_bytes() => Ok(None),
        Some([VERSION, id @ ..]) => Ok(Some(String::from_utf8_lossy(id).into_owned())),
        // Absent, or of a later version that has a reason of its own.
        _ => {
            let mut batch = Batch::new();
            batch.put(KEY, [&[VERSION], gateway_id.as_bytes()].concat());
            // Not waited for: a full disk must not hold up the start. It is
            // durable before any record that is committed later.
            state.submit(batch, None)?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use risiti_store::StoreOptions;

    #[test]
    fn a_state_belongs_to_the_gateway_that_used_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path().join("store"));
        let (state, _) = State::open(&options).unwrap();
        assert_eq!(former_owner(&state, "gw-1").unwrap(), None);
        state.close();
        drop(state);
        let (state, _) = State::open(&options).unwrap();
        assert_eq!(former_owner(&state, "gw-1").unwrap(), None);
        assert_eq!(former_owner(&state, "gw-2").unwrap(), Some("gw-1".into()));
    }
}
