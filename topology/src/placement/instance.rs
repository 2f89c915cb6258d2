//! The problem in dense numbers: demands, options and resources are places in vectors.

use std::collections::HashMap;
use std::ops::Range;

use overway_wire::{Class, LinkId, LinkIndex, Path, RelayId};

use super::{OPTIONS_MAX, Problem, Resource, WHOLE};

/// Lists of numbers, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    ends: Vec<u32>,
    items: Vec<u32>,
}

/// A [`Problem`] for computing. Only resources with a capacity are here; options are numbered through
/// all demands.
#[derive(Debug)]
pub(super) struct Instance {
    demands: Vec<DemandEntry>,
    options: Vec<OptionEntry>,
    /// Resources of each option.
    uses: Lists,
    /// Options of each resource.
    users: Lists,
    names: Vec<Resource>,
    capacities: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct DemandEntry {
    first: u32,
    end: u32,
    /// In bit/s, at least one: an idle demand has a best path too.
    pub rate: u64,
    pub class: Class,
}

#[derive(Debug)]
pub(super) struct OptionEntry {
    /// Whose it is.
    pub demand: u32,
    pub cost: u32,
    pub price: u32,
    pub previous: u16,
}

impl Lists {
    fn with_capacity(lists: usize) -> Self {
        Self { ends: Vec::with_capacity(lists), items: Vec::with_capacity(lists * 4) }
    }

    pub(super) fn push(&mut self, items: impl IntoIterator<Item = u32>) {
        self.items.extend(items);
        self.ends.push(number(self.items.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Items in all lists.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    pub(super) fn list(&self, at: usize) -> &[u32] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.items[start..self.ends[at] as usize]
    }

    /// For each of `count` items the lists that hold it, in order.
    fn inverted(&self, count: usize) -> Self {
        let mut ends = vec![0_u32; count];
        for &item in &self.items {
            ends[item as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            // The list's start, which moves to its end as it fills.
            (*end, sum) = (sum, sum + *end);
        }
        let mut items = vec![0; self.items.len()];
        for at in 0..self.len() {
            for &item in self.list(at) {
                let end = &mut ends[item as usize];
                items[*end as usize] = number(at);
                *end += 1;
            }
        }
        Self { ends, items }
    }
}

impl Instance {
    pub(super) fn of(problem: &Problem) -> Self {
        let mut demands = Vec::with_capacity(problem.demands.len());
        let mut options = Vec::new();
        let mut uses = Lists::with_capacity(problem.demands.len() * 4);
        let mut resources = Resources::new(problem);
        let mut used = Vec::new();
        for (demand, entry) in problem.demands.iter().enumerate() {
            let first = number(options.len());
            for option in entry.options.iter().take(OPTIONS_MAX) {
                let previous = option.previous.0.min(WHOLE);
                let (cost, price) = (option.cost.0, option.price.0);
                options.push(OptionEntry { demand: number(demand), cost, price, previous });
                used.clear();
                for link in links(entry.key.source, &option.path) {
                    used.extend_from_slice(resources.on(link).numbers());
                }
                // A path that comes back to its source would count twice.
                used.sort_unstable();
                used.dedup();
                uses.push(used.iter().copied());
            }
            let (rate, class) = (entry.rate.0.max(1), entry.key.class);
            demands.push(DemandEntry { first, end: number(options.len()), rate, class });
        }
        let Resources { names, capacities, .. } = resources;
        let users = uses.inverted(names.len());
        Self { demands, options, uses, users, names, capacities }
    }

    pub(super) fn demands(&self) -> &[DemandEntry] {
        &self.demands
    }

    pub(super) fn options(&self) -> &[OptionEntry] {
        &self.options
    }

    pub(super) fn names(&self) -> &[Resource] {
        &self.names
    }

    /// In bit/s.
    pub(super) fn capacities(&self) -> &[u64] {
        &self.capacities
    }

    /// The resources that an option fills.
    pub(super) fn uses(&self, option: usize) -> &[u32] {
        self.uses.list(option)
    }

    /// The options that fill a resource.
    pub(super) fn users(&self, resource: usize) -> &[u32] {
        self.users.list(resource)
    }

    /// The demand that has an option.
    pub(super) fn demand_of(&self, option: usize) -> &DemandEntry {
        &self.demands[self.options[option].demand as usize]
    }

    /// The other options of an option's demand.
    pub(super) fn others(&self, option: usize) -> impl Iterator<Item = usize> {
        self.demand_of(option).options().filter(move |&other| other != option)
    }

    /// The order in which a demand prefers its options: by cost, then price, then place.
    pub(super) fn preference(&self, option: usize) -> (u32, u32, usize) {
        let OptionEntry { cost, price, .. } = self.options[option];
        (cost, price, option)
    }

    /// A demand's best option, if it has any.
    pub(super) fn best(&self, demand: &DemandEntry) -> Option<usize> {
        demand.options().min_by_key(|&option| self.preference(option))
    }

    /// Whether any demand had shares before.
    pub(super) fn has_previous(&self) -> bool {
        self.options.iter().any(|option| option.previous > 0)
    }

    /// What all demands want, in bit/s.
    pub(super) fn rate(&self) -> u128 {
        self.demands.iter().map(|demand| u128::from(demand.rate)).sum()
    }

    /// The sum of rate x cost if every demand took its best path, in thousandths.
    pub(super) fn least_cost(&self) -> u128 {
        let best = self.demands.iter().filter_map(|demand| Some((demand, self.best(demand)?)));
        best.map(|(demand, option)| {
            u128::from(demand.rate) * u128::from(self.options[option].cost) * u128::from(WHOLE)
        })
        .sum()
    }
}

impl DemandEntry {
    /// The places of its options.
    pub(super) fn options(&self) -> Range<usize> {
        self.first as usize..self.end as usize
    }
}

/// Numbers resources with a capacity as they are met.
struct Resources<'a> {
    problem: &'a Problem,
    numbers: HashMap<Resource, u32>,
    /// What is at each end of the links that were met: most links share theirs with others.
    sending: HashMap<(RelayId, LinkIndex), Few>,
    receiving: HashMap<(RelayId, LinkIndex), Few>,
    links: HashMap<LinkId, Few>,
    names: Vec<Resource>,
    capacities: Vec<u64>,
}

/// The numbers of a link's resources.
#[derive(Clone, Copy, Debug, Default)]
struct Few {
    numbers: [u32; 5],
    count: usize,
}

impl Few {
    fn extend(&mut self, numbers: &[u32]) {
        self.numbers[self.count..self.count + numbers.len()].copy_from_slice(numbers);
        self.count += numbers.len();
    }

    fn numbers(&self) -> &[u32] {
        &self.numbers[..self.count]
    }
}

impl<'a> Resources<'a> {
    fn new(problem: &'a Problem) -> Self {
        Self {
            problem,
            numbers: HashMap::new(),
            sending: HashMap::new(),
            receiving: HashMap::new(),
            links: HashMap::new(),
            names: Vec::new(),
            capacities: Vec::new(),
        }
    }

    fn on(&mut self, link: LinkId) -> Few {
        if let Some(&few) = self.links.get(&link) {
            return few;
        }
        let LinkId { from, to, index } = link;
        let [own, sending, line_sending, receiving, line_receiving] = Resource::on(link);
        let mut few = self.number(&[own]);
        let sending = match self.sending.get(&(from, index)) {
            Some(&sending) => sending,
            None => self.number(&[sending, line_sending]),
        };
        let receiving = match self.receiving.get(&(to, index)) {
            Some(&receiving) => receiving,
            None => self.number(&[receiving, line_receiving]),
        };
        self.sending.insert((from, index), sending);
        self.receiving.insert((to, index), receiving);
        few.extend(sending.numbers());
        few.extend(receiving.numbers());
        self.links.insert(link, few);
        few
    }

    /// Those of some resources that have a capacity.
    fn number(&mut self, resources: &[Resource]) -> Few {
        let mut few = Few::default();
        for &resource in resources {
            if let Some(capacity) = self.problem.capacity(resource) {
                let (names, capacities) = (&mut self.names, &mut self.capacities);
                let number = *self.numbers.entry(resource).or_insert_with(|| {
                    names.push(resource);
                    capacities.push(capacity.0);
                    number(names.len() - 1)
                });
                few.extend(&[number]);
            }
        }
        few
    }
}

fn links(source: RelayId, path: &Path) -> impl Iterator<Item = LinkId> {
    let steps = path.elements();
    let before = std::iter::once(source).chain(steps.iter().map(|step| step.relay));
    before.zip(steps).map(|(from, step)| LinkId::new(from, step.relay, step.link))
}

/// A place as it is kept.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a problem of four thousand million entries fits in no memory")
}
