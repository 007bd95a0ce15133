//! The chapters about proxies: nodes, a load balancer on both datapaths, and deaths of a backend and a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fiberlb_lab::proxy::ProxyNode;

use crate::cloud::{BACKEND_PORT, CHASSIS, NETWORK};
use crate::path_traces::PathTraces;
use crate::terminal::Terminal;
use crate::walkthrough::{Walkthrough, in_step};

/// The second load balancer.
const NAME: &str = "shop";
/// The port that OVN balances, and the one that proxies serve.
const PORTS: [u16; 2] = [80, 81];
/// The backend that fails.
const PATIENT: &str = "backend2";
/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so long no request goes to a failed backend: two probes, a second apart and up to a tenth late, one time-out,
/// and a second to carry it out.
const GONE: Duration = Duration::from_millis(2 * 1100 + 1000 + 1000);
/// After so long a dead node is out of OVN's rows.
const OUT: Duration = Duration::from_secs(3);

/// Addresses of the second load balancer.
#[derive(Clone, Copy, Debug)]
struct Shop {
    ovn: SocketAddr,
    proxied: SocketAddr,
}

impl Walkthrough {
    /// The chapters about proxies.
    ///
    /// # Errors
    /// It cannot go on.
    pub(crate) async fn show_proxies(&mut self, terminal: &Terminal) -> Result<()> {
        self.add_nodes(terminal).await?;
        let shop = self.create_shop(terminal).await?;
        self.kill_backend(terminal, shop).await?;
        self.kill_node(terminal, shop).await?;
        self.kill_plugin(terminal, shop).await
    }

    async fn add_nodes(&mut self, terminal: &Terminal) -> Result<()> {
        terminal.chapter("Two proxy nodes join");
        terminal.note("What OVN cannot do by itself, such as health checks from inside of the tenant's network and proxying,");
        terminal.note("an agent on each chassis does, in a namespace for each tenant network.");
        let endpoint = self.plugin.agents_endpoint();
        for chassis in CHASSIS {
            let node = ProxyNode::start(self.cloud.lab(), chassis, &endpoint).await?;
            terminal.line(&format!("started fiberlb-proxy on {chassis}, as {}", node.id()));
            self.nodes.push(node);
        }
        self.until("both nodes are alive", async |walkthrough| {
            let listed = walkthrough.tenant.asks("fiberlb node list").await?;
            Ok(listed.matches("ALIVE").count() == CHASSIS.len())
        })
        .await?;
        self.tenant.types(terminal, "fiberlb node list").await.map(drop)
    }

    async fn create_shop(&self, terminal: &Terminal) -> Result<Shop> {
        terminal
            .chapter("A second load balancer: one port by OVN, one by proxies, and a health check for both");
        let document = self.shop_document()?;
        tokio::fs::write(self.folder.path().join("shop.yaml"), &document).await?;
        terminal.typed("cat shop.yaml");
        terminal.quote("", &document);
        self.tenant.types(terminal, "fiberlb apply -f shop.yaml --wait").await?;
        terminal.during("every backend waits for its first good probe", self.until_online()).await?;
        self.tenant.types(terminal, "fiberlb tree shop").await?;
        terminal.note("The listener of port 81 leads to the nodes, which are both in service:");
        self.show_rows(terminal).await?;
        let address = self.tenant.load_balancer_field(NAME, "vip_address").await?;
        let address = address.parse().context("the VIP")?;
        let [ovn, proxied] = PORTS.map(|port| SocketAddr::new(address, port));
        for target in [ovn, proxied] {
            self.measure(terminal, target, &[("backend1", 1), (PATIENT, 1), ("backend3", 1)]).await?;
        }
        Ok(Shop { ovn, proxied })
    }

    async fn kill_backend(&mut self, terminal: &Terminal, shop: Shop) -> Result<()> {
        terminal.chapter("A backend dies under traffic, and comes back");
        let traffic = PathTraces::start(self.client()?, shop.ovn, shop.proxied)?;
        terminal
            .during("client1 sends 50 requests a second on each path", traffic.meet(PATIENT, Instant::now()))
            .await?;
        let died = Instant::now();
        self.cloud.stop_server(PATIENT);
        let dead = Instant::now();
        terminal.line("the server on backend2 is dead: its machine refuses connections");
        self.until_health("OPERATING_STATUS_OFFLINE").await?;
        terminal.line(&format!("FiberLB knows after {:.1?}", died.elapsed()));
        self.tenant.types(terminal, "fiberlb health show shop/servers/backend2").await?;
        tokio::time::sleep((GONE + Duration::from_secs(2)).saturating_sub(died.elapsed())).await;
        let (ovn, proxied) = terminal.alive(traffic.stop()).await;
        for outcome in [&ovn, &proxied] {
            let gone = outcome.last_failure(died) <= GONE && outcome.last_answer(PATIENT, died) <= GONE;
            let claim = format!("on {} no request meets it after {GONE:.1?}", outcome.path);
            terminal.check(gone, &claim, &outcome.summary(died));
        }
        let claim = "proxies lose none: they try the next backend";
        // What was being answered when the server died is lost with it.
        let (lost, total) = proxied.failures_since(dead);
        terminal.check(lost == 0, claim, &format!("{lost} of {total} requests since its death failed"));
        self.tenant.types(terminal, "fiberlb tree shop").await?;
        self.bring_back(terminal, shop).await
    }

    async fn bring_back(&mut self, terminal: &Terminal, shop: Shop) -> Result<()> {
        let traffic = PathTraces::start(self.client()?, shop.ovn, shop.proxied)?;
        self.cloud.start_server(PATIENT)?;
        let since = Instant::now();
        let back =
            terminal.during("the server on backend2 is started again", traffic.meet(PATIENT, since)).await?;
        self.until_online().await?;
        let (ovn, proxied) = terminal.alive(traffic.stop()).await;
        let claim = "it takes requests on both paths after two good probes";
        terminal.check(back <= GONE, claim, &format!("after {back:.1?}"));
        for outcome in [&ovn, &proxied] {
            let claim = format!("no request on {} was lost by its return", outcome.path);
            terminal.check(outcome.failures() == 0, &claim, &outcome.summary(since));
        }
        Ok(())
    }

    async fn kill_node(&mut self, terminal: &Terminal, shop: Shop) -> Result<()> {
        terminal.chapter("A proxy node is killed under traffic, and returns");
        let traffic = PathTraces::start(self.client()?, shop.ovn, shop.proxied)?;
        traffic.meet(PATIENT, Instant::now()).await?;
        let node = self.nodes.last_mut().context("there is no node")?;
        terminal.typed(&format!("kill -9 {}    # {}", node.pid(), node.id()));
        node.kill()?;
        let died = Instant::now();
        terminal.during("OVN's row still leads to it", self.until_serving(shop, 1)).await?;
        let out = died.elapsed();
        terminal.check(out <= OUT, "it is out of OVN's row soon", &format!("after {out:.1?}"));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (ovn, proxied) = terminal.alive(traffic.stop()).await;
        terminal.check(ovn.failures() == 0, "OVN's path does not notice", &ovn.summary(died));
        // A second for the change to reach both chassis.
        let lost = proxied.last_failure(died) <= OUT + Duration::from_secs(1);
        terminal.check(
            lost,
            "proxies lose what goes to the dead one until then, and nothing after",
            &proxied.summary(died),
        );
        self.tenant.types(terminal, "fiberlb node list").await?;
        let back = Instant::now();
        self.nodes.last_mut().context("there is no node")?.start_again().await?;
        terminal.during("starting it again", self.until_serving(shop, 2)).await?;
        terminal.line(&format!("it serves again after {:.1?}", back.elapsed()));
        Ok(())
    }

    async fn kill_plugin(&mut self, terminal: &Terminal, shop: Shop) -> Result<()> {
        terminal.chapter("The plugin is killed again, now with proxies and checks at work");
        let traffic = PathTraces::start(self.client()?, shop.ovn, shop.proxied)?;
        traffic.meet(PATIENT, Instant::now()).await?;
        terminal.typed(&format!("kill -9 {}", self.plugin.pid()));
        self.plugin.kill()?;
        let died = Instant::now();
        terminal.during("three seconds without it", tokio::time::sleep(Duration::from_secs(3))).await;
        self.plugin.start_again().await?;
        terminal.during("it is back, and compares its store with OVN", in_step(&self.plugin)).await?;
        self.until_online().await?;
        let (ovn, proxied) = terminal.alive(traffic.stop()).await;
        for outcome in [&ovn, &proxied] {
            let claim = format!("no request on {} was lost", outcome.path);
            terminal.check(outcome.failures() == 0, &claim, &outcome.summary(died));
        }
        let transactions = self.plugin.northbound_transactions().await?;
        let observed = format!("{transactions} transactions since it started");
        terminal.check(transactions == 0.0, "it wrote nothing to OVN", &observed);
        Ok(())
    }

    /// Deletes it, and waits until the nodes have removed their namespaces.
    ///
    /// # Errors
    /// It cannot go on.
    pub(crate) async fn clean_up_shop(&self, terminal: &Terminal) -> Result<()> {
        self.tenant.types(terminal, "fiberlb loadbalancer delete shop --cascade --wait").await?;
        let gone = self.until("the nodes have let go of everything", async |walkthrough| {
            let left = walkthrough.nodes.iter().map(ProxyNode::namespaces).collect::<Result<Vec<_>>>()?;
            Ok(left.iter().all(Vec::is_empty))
        });
        let gone = terminal.alive(gone).await;
        let observed =
            gone.as_ref().map_or_else(|error| format!("{error:#}"), |()| "none is left".to_owned());
        terminal.check(gone.is_ok(), "the nodes have removed their namespaces", &observed);
        Ok(())
    }

    async fn until_online(&self) -> Result<()> {
        self.until("all of shop is ONLINE", async |walkthrough| {
            let tree = walkthrough.tenant.asks("fiberlb tree shop").await?;
            Ok(!["OFFLINE", "DEGRADED", "ERROR", "NO_MONITOR"].iter().any(|status| tree.contains(status)))
        })
        .await
    }

    async fn until_health(&self, wanted: &str) -> Result<()> {
        self.until(&format!("backend2 is {wanted}"), async |walkthrough| {
            let line = "fiberlb health show shop/servers/backend2 -o json";
            Ok(walkthrough.tenant.asks(line).await?.contains(wanted))
        })
        .await
    }

    async fn until_serving(&self, shop: Shop, nodes: usize) -> Result<()> {
        self.until(&format!("{nodes} nodes in OVN's row"), async |walkthrough| {
            Ok(walkthrough.cloud.entries(shop.proxied).await? == nodes)
        })
        .await
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn(&Walkthrough) -> Result<bool>) -> Result<()> {
        let awaited = async {
            while !is_so(self).await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(PATIENCE, awaited).await;
        ended.with_context(|| format!("waited {PATIENCE:?} in vain: {what}"))?
    }

    fn client(&self) -> Result<&fiberlb_lab::Vm> {
        self.cloud.clients.first().context("there is no client")
    }

    /// The load balancer as a document, with the first three backends.
    fn shop_document(&self) -> Result<String> {
        let [ovn, proxied] = PORTS;
        let mut text = format!(
            "load_balancer: {{ name: {NAME}, network: {NETWORK} }}\n\
             listeners:\n  - {{ name: fast, protocol: TCP, port: {ovn}, default_pool_id: servers }}\n  \
             - {{ name: rich, protocol: TCP, port: {proxied}, default_pool_id: servers, datapath: PROXY }}\n\
             pools:\n  - pool: {{ name: servers, protocol: TCP }}\n    \
             health_check: {{ type: TCP, delay: 1s, timeout: 1s, rise: 2, fall: 2 }}\n    backends:\n"
        );
        for vm in self.cloud.backends.iter().take(3) {
            let (name, address) = (vm.name(), vm.ipv4()?);
            text.push_str(&format!("      - {{ name: {name}, address: {address}, port: {BACKEND_PORT} }}\n"));
        }
        Ok(text)
    }
}
