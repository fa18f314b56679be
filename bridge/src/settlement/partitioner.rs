//! The partition to which a terminal's records belong.
//!
//! Promises: what Kafka's own producers and librdkafka's `murmur2_random` choose for
//! this key. Never: a choice for a message without a key.

/// The partition of a key among so many; 0 of none.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive)
        .unwrap_or(0)
        .checked_rem(partitions)
        .unwrap_or(0)
}

/// MurmurHash2 with the seed that Kafka uses (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // A key is at most some kilobytes; Kafka takes its length as 32 bits, too.
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let word = word
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u32::from(*byte));
        let mut word = u32::wrapping_mul(word, M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let rest = rest
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn it_is_the_hash_of_kafkas_producers() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107_i32),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected.cast_unsigned(), "{key}");
        }
    }

    #[test]
    fn a_partition_is_one_of_those_there_are() {
        assert_eq!(partition_of(b"t", 3), 1);
        assert_eq!(partition_of(b"u", 3), 0);
        assert_eq!(partition_of(b"u", 1), 0);
        assert_eq!(partition_of(b"u", 0), 0);
    }
}
