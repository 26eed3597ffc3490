//! What a TCP listener's connections are for, made ready.

use crate::balance::Split;
use crate::snapshot::{self, Share, TcpTarget};
use crate::tls::Names;

/// Of one listener.
#[derive(Debug)]
pub struct Plan {
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    To(Shares),
    Sni(Sni),
    Echo,
}

/// Shares by server name.
#[derive(Debug)]
pub struct Sni {
    names: Names<Shares>,
    default: Option<Shares>,
}

/// Shares of upstreams, by index.
#[derive(Debug)]
pub struct Shares {
    upstreams: Vec<usize>,
    split: Split,
}

impl Plan {
    pub fn new(tcp: &snapshot::Tcp) -> Self {
        let target = match &tcp.target {
            TcpTarget::To(to) => Target::To(Shares::new(to)),
            TcpTarget::Sni(sni) => Target::Sni(Sni::new(sni)),
            TcpTarget::Echo => Target::Echo,
        };
        Self { target }
    }
}

impl Sni {
    fn new(sni: &snapshot::Sni) -> Self {
        let mut names = Names::default();
        for (name, shares) in &sni.names {
            names.entry(name).or_insert_with(|| Shares::new(shares));
        }
        Self { names, default: sni.default.as_deref().map(Shares::new) }
    }

    /// Where a client goes that asks for this name.
    pub fn find(&self, name: Option<&str>) -> Option<&Shares> {
        name.and_then(|name| self.names.find(name)).or(self.default.as_ref())
    }
}

impl Shares {
    fn new(to: &[Share]) -> Self {
        let weights: Vec<u32> = to.iter().map(|share| share.weight).collect();
        Self { upstreams: to.iter().map(|share| share.upstream).collect(), split: Split::new(&weights) }
    }

    /// The upstream for the next connection.
    pub fn choose(&self) -> usize {
        self.upstreams[self.split.choose()]
    }
}
