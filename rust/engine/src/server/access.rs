//! Which clients may connect, by address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::snapshot::Access;

/// Whether a client may connect. The longest network that has its address decides; where none has, whether there is a
/// list of those who may. Who comes over a unix socket has no address: the file's permissions decide there.
pub fn admits(access: &Access, client: Option<IpAddr>) -> bool {
    let Some(client) = client else { return true };
    let longest = |networks: &[IpNet]| networks.iter().filter(|net| net.contains(&client)).map(IpNet::prefix_len).max();
    match (access.allow.as_deref().and_then(longest), longest(&access.deny)) {
        (Some(allowed), Some(denied)) => allowed > denied,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => access.allow.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(allow: Option<&[&str]>, deny: &[&str], client: &str) -> bool {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let access = Access { allow: allow.map(networks), deny: networks(deny) };
        admits(&access, Some(client.parse().unwrap()))
    }

    #[test]
    fn all_may_where_nothing_is_said() {
        assert!(admitted(None, &[], "192.0.2.1") && admitted(None, &[], "2001:db8::1"));
    }

    #[test]
    fn a_list_of_those_who_may_shuts_out_the_others() {
        let allow = Some(&["10.0.0.0/8", "2001:db8::/32"][..]);
        assert!(admitted(allow, &[], "10.1.2.3") && admitted(allow, &[], "2001:db8::1"));
        assert!(!admitted(allow, &[], "192.0.2.1") && !admitted(allow, &[], "::1"));
        assert!(!admitted(Some(&[]), &[], "10.1.2.3"));
    }

    #[test]
    fn the_longest_network_decides() {
        let (allow, deny) = (Some(&["10.0.0.0/8", "10.1.2.3/32"][..]), &["10.1.0.0/16"][..]);
        assert!(admitted(allow, deny, "10.2.0.1") && admitted(allow, deny, "10.1.2.3"));
        assert!(!admitted(allow, deny, "10.1.2.4"));
        assert!(!admitted(None, deny, "10.1.2.3") && admitted(None, deny, "192.0.2.1"));
    }

    #[test]
    fn a_unix_socket_has_its_own_permissions() {
        assert!(admits(&Access { allow: Some(Vec::new()), deny: Vec::new() }, None));
    }
}
