//! Who may speak: root, the daemon's own user, and members of the daemon's group.

use std::io;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};
use tokio::net::UnixStream;

use super::Caller;

/// The kernel's word on who is at the other end, if they may speak.
pub(super) async fn admit(stream: &UnixStream) -> io::Result<Option<Caller>> {
    let peer = stream.peer_cred()?;
    let caller = Caller { uid: peer.uid(), pid: peer.pid() };
    let (own, group) = (geteuid(), getegid());
    if known_by_number(Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()), own, group) {
        return Ok(Some(caller));
    }
    // The group file may be far away (a directory server): not on the async thread.
    let listed = tokio::task::spawn_blocking(move || listed(Uid::from_raw(caller.uid), group)).await;
    Ok(listed.unwrap_or(false).then_some(caller))
}

/// The part that needs no look into the group file. The group of root is nobody's licence: a daemon started by root
/// in a developer's tree is heard by root alone.
fn known_by_number(uid: Uid, gid: Gid, own: Uid, group: Gid) -> bool {
    uid.is_root() || uid == own || (gid == group && group.as_raw() != 0)
}

/// Whether the group file lists the user as a member of `group`.
fn listed(uid: Uid, group: Gid) -> bool {
    let (Ok(Some(user)), Ok(Some(group))) = (User::from_uid(uid), Group::from_gid(group)) else {
        return false;
    };
    group.gid.as_raw() != 0 && (user.gid == group.gid || group.mem.contains(&user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_own_group_are_known() {
        let (uid, gid) = (Uid::from_raw, Gid::from_raw);
        let cases = [
            ((0, 0), (990, 990), true),
            ((990, 990), (990, 990), true),
            ((1000, 990), (990, 990), true),
            ((1000, 1000), (990, 990), false),
            ((1000, 0), (0, 0), false),
            ((65_534, 65_534), (990, 990), false),
        ];
        for ((u, g), (own, group), expected) in cases {
            assert_eq!(known_by_number(uid(u), gid(g), uid(own), gid(group)), expected, "{u} {g}");
        }
    }

    #[test]
    fn a_user_nobody_knows_is_not_listed() {
        assert!(!listed(Uid::from_raw(3_999_999_999), getegid()));
        assert!(!listed(Uid::from_raw(0), Gid::from_raw(0)), "the group of root is nobody's licence");
    }
}
