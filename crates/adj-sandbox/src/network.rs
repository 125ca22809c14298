//! What a sandbox has of a network: nothing, or one door that its caller holds and watches.
//!
//! Must not know: who stands behind that door and what it lets through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a proxy is expected inside, unless a plan says otherwise.
pub const PROXY_PORT: u16 = 3128;

/// What can be reached from inside; loopback is private in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NetworkPlan {
    /// Nothing outside.
    #[default]
    Off,
    /// Only what the caller makes of connections to `127.0.0.1:port`.
    ///
    /// The listener is made inside and handed out: [`Launcher::run_with_listener`](crate::Launcher::run_with_listener),
    /// [`Supervisor::listeners`](crate::Supervisor::listeners). Until somebody accepts, connections wait.
    Proxy {
        #[serde(default = "default_port")]
        port: u16,
    },
}

fn default_port() -> u16 {
    PROXY_PORT
}

/// The variables by which programs inside find a proxy on `port`; they go into [`Plan::env`](crate::Plan::env).
pub fn proxy_environment(port: u16) -> BTreeMap<String, String> {
    let http = format!("http://127.0.0.1:{port}");
    // With the `h`, names are resolved by the proxy: there is no name server inside.
    let socks = format!("socks5h://127.0.0.1:{port}");
    let own = "localhost,127.0.0.1,::1".to_owned();
    [("http_proxy", &http), ("https_proxy", &http), ("all_proxy", &socks), ("no_proxy", &own)]
        .into_iter()
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_uppercase(), value.clone())])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_variables_is_there() {
        let environment = proxy_environment(4000);
        let names: Vec<&str> = environment.keys().map(String::as_str).collect();
        let expected = [
            "ALL_PROXY",
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "all_proxy",
            "http_proxy",
            "https_proxy",
            "no_proxy",
        ];
        assert_eq!(names, expected);
        assert_eq!(environment["https_proxy"], "http://127.0.0.1:4000");
        assert_eq!(environment["ALL_PROXY"], "socks5h://127.0.0.1:4000");
    }

    #[test]
    fn a_plan_may_leave_the_port_out() {
        let cases = [
            (r#"{"kind":"off"}"#, NetworkPlan::Off),
            (r#"{"kind":"proxy"}"#, NetworkPlan::Proxy { port: PROXY_PORT }),
            (r#"{"kind":"proxy","port":80}"#, NetworkPlan::Proxy { port: 80 }),
        ];
        for (text, expected) in cases {
            assert_eq!(serde_json::from_str::<NetworkPlan>(text).expect("a network"), expected, "{text}");
        }
    }
}
