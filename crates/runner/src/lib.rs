//! Executes a plan: fresh VMs, the guest protocol, counters, raw samples
