//! What a TCP listener's connections are for, made ready.

use crate::balance::Split;
use crate::snapshot::{self, Share, TcpTarget};

/// Of one listener.
#[derive(Debug)]
pub struct Plan {
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    To(Shares),
    Echo,
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
            TcpTarget::Echo => Target::Echo,
        };
        Self { target }
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
