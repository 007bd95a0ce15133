#!/bin/sh
# Makes the files and the database of a Neutron with ML2/OVN, for the tests of FiberLB beside it (`make test-neutron`).
#
#   prepare.sh PYTHON FOLDER LISTEN    PYTHON: virtual environment with Neutron; FOLDER: new, for all of its files;
#                                      LISTEN: ADDRESS:PORT of its API. OVN's databases are in /run/central.
set -eu
python=$1
folder=$2
listen=$3
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$folder/state" "$folder/lock"
cat >"$folder/neutron.conf" <<END
[DEFAULT]
core_plugin = ml2
service_plugins = ovn-router,segments
auth_strategy = noauth
transport_url = fake://
rpc_response_timeout = 1
state_path = $folder/state
log_file = $folder/neutron.log
api_paste_config = $python/etc/neutron/api-paste.ini
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = sqlite:///$folder/neutron.db
[oslo_concurrency]
lock_path = $folder/lock
[oslo_messaging_notifications]
driver = noop
[ml2]
mechanism_drivers = ovn
type_drivers = geneve,flat,vlan,local
tenant_network_types = geneve
extension_drivers = port_security,dns
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ml2_type_flat]
flat_networks = public
[ovn]
ovn_nb_connection = unix:/run/central/nb.sock
ovn_sb_connection = unix:/run/central/sb.sock
ovn_metadata_enabled = true
END
# The hash ring of Neutron's workers asks for the start time.
cat >"$folder/uwsgi.ini" <<END
[uwsgi]
module = neutron.wsgi.api:application
http-socket = $listen
master = true
processes = 1
threads = 4
enable-threads = true
lazy-apps = true
need-app = true
buffer-size = 65535
start-time = %t
die-on-term = true
env = OS_NEUTRON_CONFIG_DIR=$folder
env = OS_NEUTRON_CONFIG_FILES=neutron.conf
END
# On sqlite a locked database has to be retried, as Neutron does by itself on MySQL.
for site in "$python"/lib/python3*/site-packages; do
    cp "$here/sqlite_shim.py" "$site/"
    echo 'import sqlite_shim' >"$site/sqlite_shim.pth"
done
# Neutron's migrations alter constraints, which sqlite cannot.
"$python/bin/python" - "$folder" <<'END'
import sys
import sqlalchemy
from neutron.db.migration.models import head

engine = sqlalchemy.create_engine(f"sqlite:///{sys.argv[1]}/neutron.db")
head.get_metadata().create_all(engine)
END
"$python/bin/neutron-db-manage" --config-file "$folder/neutron.conf" stamp heads
