"""Runs the maintenance worker of Neutron's OVN driver, with a round every few seconds in place of five minutes.

    PYTHON maintenance.py WORKER OPTION...    WORKER: the environment's neutron-ovn-maintenance-worker
"""
import runpy
import sys

try:
    # Before anything else, where Neutron still runs on it.
    import neutron.cmd.eventlet  # noqa: F401
except ImportError:
    pass
from neutron.common.ovn import constants

constants.DB_CONSISTENCY_CHECK_INTERVAL = 3
constants.MAINTENANCE_ONE_RUN_TASK_SPACING = 1
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
