# The images of FiberLB, and those of its testbed (testenv/compose). Each is a target:
#
#   plugin      fiberlb-plugin and fiberlb, for anybody: as user 10001, without any capability
#   proxy       fiberlb-proxy: as root, with the capabilities that docs/getting-started.md lists and justifies
#   etcd, central, chassis, vm, prometheus    what the testbed needs besides; not for anything else
#
# Arguments:
#   BASE        what all of them are based on, by point release: a Debian 13. On a Debian 12 they work too, but for its Open
#               vSwitch
#   BUILDER     what the binaries are built in: a Debian with Rust 1.90 or later and a C compiler. It must not be newer
#               than BASE, whose libc would be too old for them
#   BINARIES    build: build them. outside: take those in testenv/compose/binaries/ (`testenv/compose/testbed binaries`
#               puts them there); BUILDER may then be the same as BASE
#   VERSION     the version of FiberLB, as Cargo.toml has it; the images are labelled with it

ARG BASE=debian:13.8-slim
ARG BUILDER=rust:1.95-slim-trixie

# --- The testbed's own -----------------------------------------------------------------------------------------------

FROM ${BASE} AS etcd
LABEL com.fiberlb.image=etcd
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends etcd-server etcd-client >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/bin/etcdutl
USER etcd
WORKDIR /var/lib/etcd
ENTRYPOINT ["etcd"]

FROM ${BASE} AS prometheus
LABEL com.fiberlb.image=prometheus
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends prometheus >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
    /usr/share/javascript/moment-timezone/*/ \
 && install -d -o prometheus -g prometheus /var/lib/prometheus
COPY testenv/compose/images/prometheus.yml packaging/monitoring/fiberlb.rules.yml packaging/monitoring/fiberlb.rules.test.yml /etc/prometheus/
COPY packaging/monitoring/consoles /etc/prometheus/consoles
RUN promtool check config /etc/prometheus/prometheus.yml && promtool test rules /etc/prometheus/fiberlb.rules.test.yml \
 && rm /usr/bin/promtool
USER prometheus
WORKDIR /var/lib/prometheus
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/var/lib/prometheus", \
    "--web.listen-address=0.0.0.0:9090", "--web.console.templates=/etc/prometheus/consoles", "--log.level=warn"]

FROM ${BASE} AS central
LABEL com.fiberlb.image=central
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ovn-central >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10002 --user-group --home-dir /var/lib/ovn ovn \
 && install -d -o ovn -g ovn /run/ovn /run/openvswitch /var/lib/ovn /var/log/ovn
COPY testenv/compose/images/daemons.sh /usr/local/lib/fiberlb/
COPY testenv/compose/images/central testenv/compose/images/cloud /usr/local/bin/
USER ovn
ENTRYPOINT ["central"]

FROM ${BASE} AS chassis
LABEL com.fiberlb.image=chassis
# (systemd-standalone-sysusers: else all of systemd would come in for the user of uuid-runtime.)
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ovn-host openvswitch-switch ethtool iproute2 \
    systemd-standalone-sysusers >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY testenv/compose/images/daemons.sh /usr/local/lib/fiberlb/
COPY testenv/compose/images/chassis testenv/compose/images/plug-vms /usr/local/bin/
ENTRYPOINT ["chassis"]

FROM ${BASE} AS vm
LABEL com.fiberlb.image=vm
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends nginx socat curl ethtool iproute2 iputils-ping >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/default \
 && cp /usr/bin/ping /usr/bin/ping.plain && mv /usr/bin/ping.plain /usr/bin/ping
# (Debian 12 gives ping a file capability, which the VMs may not have; a copy of it has none, as Debian 13's.
# net.ipv4.ping_group_range lets them ping without.)
COPY testenv/compose/images/nginx.conf /etc/nginx/nginx.conf
COPY testenv/compose/images/tenant-vm testenv/compose/images/outside testenv/compose/images/ask /usr/local/bin/
ENTRYPOINT ["tenant-vm"]

# --- FiberLB ---------------------------------------------------------------------------------------------------------

FROM ${BUILDER} AS binaries
LABEL com.fiberlb.image=binaries
ARG BINARIES=build
WORKDIR /src
COPY . .
RUN testenv/compose/images/binaries.sh "$BINARIES" /binaries

FROM ${BASE} AS plugin
ARG VERSION=0.1.0
LABEL com.fiberlb.image=plugin \
      org.opencontainers.image.title="FiberLB control plane" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses=Apache-2.0
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/fiberlb fiberlb \
 && install -d -o fiberlb -g fiberlb /var/lib/fiberlb /run/fiberlb /etc/fiberlb
COPY --from=binaries /binaries/fiberlb-plugin /binaries/fiberlb /usr/local/bin/
COPY --from=binaries /binaries/fiberlb-plugin.cdx.json /binaries/fiberlb.cdx.json /usr/local/share/doc/fiberlb/
# Built against a newer libc, they would say so only when they are started.
RUN fiberlb-plugin --version | grep -Fx "fiberlb-plugin $VERSION" && fiberlb version | grep -Fx "fiberlb $VERSION"
USER fiberlb
WORKDIR /var/lib/fiberlb
# The API, metrics, and the agents' listener.
EXPOSE 9630 9631 9633
ENTRYPOINT ["fiberlb-plugin"]

FROM ${BASE} AS proxy
ARG VERSION=0.1.0
LABEL com.fiberlb.image=proxy \
      org.opencontainers.image.title="FiberLB node agent" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=binaries /binaries/fiberlb-proxy /usr/local/bin/
COPY --from=binaries /binaries/fiberlb-proxy.cdx.json /usr/local/share/doc/fiberlb/
RUN fiberlb-proxy --version | grep -Fx "fiberlb-proxy $VERSION"
COPY testenv/compose/images/proxy-node /usr/local/bin/
# Metrics.
EXPOSE 9632
ENTRYPOINT ["proxy-node"]
