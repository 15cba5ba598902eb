//! Which hosts a table was made from, in the order of the model, so that the next model can be held against it.
//!
//! Hosts stand in blocks behind `Arc`s. Blocks in which no pointer changed are shared and cost one comparison a host; only in the others
//! are patterns compared.

use std::{
    cmp::Ordering,
    collections::btree_map,
    iter::{Filter, Peekable},
    sync::Arc,
};

use penstock_model::{Host, HostPattern, Model};

/// Hosts in a new block. A change copies one block; sharing one costs the same whatever its size.
const BLOCK: usize = 256;

/// Beyond this a block is split.
const MAX_BLOCK: usize = 2 * BLOCK;

type Block = Arc<[Entry]>;

/// The pattern under which a host stands, and the host.
type Entry = (HostPattern, Arc<Host>);

#[derive(Clone, Default)]
pub(crate) struct Roster {
    blocks: Vec<Block>,
}

/// What became of one host.
pub(crate) enum Change<'m> {
    /// It is new, or may be another: the pointer is.
    Set(&'m HostPattern, &'m Arc<Host>),
    Removed(HostPattern),
}

type Hosts<'m> = Peekable<Filter<btree_map::Iter<'m, HostPattern, Arc<Host>>, fn(&(&'m HostPattern, &'m Arc<Host>)) -> bool>>;

/// Requests to a host that has no more than a certificate belong to others.
fn takes_requests(host: &(&HostPattern, &Arc<Host>)) -> bool {
    !host.1.certificate_only
}

impl Roster {
    /// The roster of the next model; `change` is told what differs.
    pub(crate) fn next<'m>(&self, model: &'m Model, change: &mut impl FnMut(Change<'m>)) -> Self {
        let mut next = Self { blocks: Vec::with_capacity(self.blocks.len() + 1) };
        let mut hosts: Hosts<'m> = model.hosts.iter().filter(takes_requests as fn(&_) -> _).peekable();
        for block in &self.blocks {
            let mut ahead = hosts.clone();
            if block.iter().all(|(_, known)| ahead.next().is_some_and(|(_, host)| Arc::ptr_eq(known, host))) {
                next.blocks.push(block.clone());
                hosts = ahead;
            } else {
                next.push(merge(block, &mut hosts, change));
            }
        }
        let mut rest = Vec::new();
        for (pattern, host) in hosts {
            change(Change::Set(pattern, host));
            rest.push((pattern.clone(), host.clone()));
        }
        next.push(rest);
        next
    }

    fn push(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        if entries.len() <= MAX_BLOCK {
            self.blocks.push(entries.into());
        } else {
            self.blocks.extend(entries.chunks(BLOCK).map(Arc::from));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }
}

/// The block as it is now: the hosts that do not come after its last one.
fn merge<'m>(block: &Block, hosts: &mut Hosts<'m>, change: &mut impl FnMut(Change<'m>)) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(block.len() + 1);
    for (known_pattern, known) in block.iter() {
        loop {
            let order = hosts.peek().map_or(Ordering::Greater, |(pattern, _)| (*pattern).cmp(known_pattern));
            if order == Ordering::Greater {
                change(Change::Removed(known_pattern.clone()));
                break;
            }
            let Some((pattern, host)) = hosts.next() else { break };
            entries.push((pattern.clone(), host.clone()));
            if order == Ordering::Less || !Arc::ptr_eq(known, host) {
                change(Change::Set(pattern, host));
            }
            if order == Ordering::Equal {
                break;
            }
        }
    }
    entries
}
