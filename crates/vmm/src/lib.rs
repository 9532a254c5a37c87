//! A small VMM: VM, vCPU, memory, devices and run loop
