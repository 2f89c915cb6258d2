//! The links that leave a source, in order as far as somebody asks.

/// So many are put in order at first: in a mesh of a thousand relays the cheapest ways mostly begin with one of these,
/// and to order all takes a tenth of a plan's time.
const FIRST: usize = if cfg!(test) { 4 } else { 128 };

/// What the source's link to a relay costs, and the relay's number.
type Reach = (u32, u32);

/// Relays with what the source's link to them costs: the cheapest in order of cost, then of number, the others behind
/// them in no order.
#[derive(Debug, Default)]
pub(super) struct Nearest {
    links: Vec<Reach>,
    ordered: usize,
}

impl Nearest {
    /// Takes other links, and orders the first of them.
    pub(super) fn fill(&mut self, links: impl Iterator<Item = Reach>) {
        self.links.clear();
        self.links.extend(links);
        self.ordered = self.links.len();
        if self.ordered > FIRST {
            self.ordered = FIRST;
            self.links.select_nth_unstable_by_key(FIRST, key);
        }
        self.links[..self.ordered].sort_unstable_by_key(key);
    }

    /// Orders all of them.
    pub(super) fn order_all(&mut self) {
        self.links[self.ordered..].sort_unstable_by_key(key);
        self.ordered = self.links.len();
    }

    /// Those in order, and those that cost at least as much as each of them.
    pub(super) fn parts(&self) -> (&[Reach], &[Reach]) {
        self.links.split_at(self.ordered)
    }
}

/// One comparison instead of two.
fn key(&(cost, relay): &Reach) -> u64 {
    u64::from(cost) << 32 | u64::from(relay)
}
