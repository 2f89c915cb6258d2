// An overview of a made-up mesh, with so many relays, and so many of its links.
export function large(relays, links) {
  let seed = 1;
  const random = (below) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const relay = (_, at) => ({
    id: at + 1,
    name: `relay-${at + 1}`,
    region: `region-${at % 20}`,
    provider: `provider-${at % 8}`,
    software: "made up",
    location: at % 50 ? { latitude_e6: random(110_000_000) - 45_000_000, longitude_e6: random(340_000_000) - 170_000_000 } : { latitude_e6: 0, longitude_e6: at * 1_000 },
    registered: true,
    connected: true,
    draining: false,
    drain: null,
    transit: true,
    links: relays - 1,
    links_usable: at === 3 ? 0 : relays - 2,
    sent_bps: random(1_000_000_000),
    received_bps: random(1_000_000_000),
    demand_bps: 0,
    self_stalls: 0,
    last_report_age_ms: 300,
    services: at % 10 ? [] : ["web"],
  });
  const link = (_, at) => ({
    from: (at % relays) + 1,
    to: ((at * 7 + 3 + Math.floor(at / relays)) % relays) + 1,
    state: at % 40 ? "up" : "down",
    candidate: true,
    delay_us: random(200_000),
    loss_ppm: random(30_000),
    jitter_us: random(3_000),
    received_bps: random(500_000_000),
    load_permille: random(900),
  });
  return {
    at_unix_ms: Date.now(),
    mesh: "large",
    software: "made up",
    epoch_term: 1,
    epoch_sequence: 1,
    settling: false,
    relays: Array.from({ length: relays }, relay),
    links: Array.from({ length: links }, link),
    link_counts: { usable: relays * (relays - 1) - 40, suspect: 0, unusable: 40, unknown: 0, trial: 0 },
  };
}
