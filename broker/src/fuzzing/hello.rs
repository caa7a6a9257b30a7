//! The JSON that another node sends in the handshake of a route, for the fuzz target `hello`.

use crate::route::hello::{Hello, Peer, Refusal, RefusalReason};

/// Parses the JSON of HELLO, REFUSE and PEERS.
///
/// # Panics
/// If a HELLO differs after it was written and parsed again.
pub fn hello(json: &[u8]) {
    let _ = serde_json::from_slice::<Vec<Peer>>(json);
    let refusal = serde_json::from_slice::<Refusal>(json);
    let reason = refusal.map_or(RefusalReason::ClusterName, |refusal| refusal.why);
    if let Ok(hello) = serde_json::from_slice::<Hello>(json)
        && hello.is_sound()
    {
        let written = serde_json::to_vec(&hello).unwrap_or_default();
        let again = serde_json::from_slice::<Hello>(&written).ok();
        assert_eq!(again.as_ref(), Some(&hello));
        let _ = reason.text(&hello, &Hello::default());
    }
}
