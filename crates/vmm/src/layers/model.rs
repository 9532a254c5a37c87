//! The device model of the ladder: one device for the port, and three ways to find it.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exitpath_exits::ladder::{Dispatch, TREE_OBJECTS};
use exitpath_exits::layout::{MAX_VCPUS, port};

/// A hash table as Rust's usual one, but for its keys' secret: with one, the instructions that a
/// lookup takes would be another number in each process.
type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Port ranges in the interval map, the devices' included.
const RANGES: usize = 64;
/// Ports of a range, but for the devices' own.
const RANGE_LENGTH: u16 = 8;
/// Where the devices' objects are in the tree, by their numbers.
const UNATTACHED: &str = "/machine/unattached";
/// Type of the devices' objects.
const DEVICE_TYPE: &str = "exitpath-device";
/// Type of everything else in the tree.
const OTHER_TYPE: &str = "memory-region";

/// Devices, and how they are found.
#[derive(Debug)]
pub struct Model {
    lock: Mutex<()>,
    /// The first one answers [`port::USER_WRITE`], the others a vCPU's port each.
    devices: Vec<Device>,
    map: BTreeMap<u16, (u16, Option<usize>)>,
    tree: Tree,
    /// The device's place, found when the model was made.
    resolved: usize,
}

/// A device with one register.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Device {
    lock: Mutex<()>,
    register: AtomicU32,
}

impl Device {
    /// Takes a write, and works on it for so many rounds.
    #[inline(always)]
    pub(super) fn write(&self, value: u32, rounds: u32) {
        let mut value = value;
        for _ in 0..rounds {
            // Xorshift (Marsaglia, "Xorshift RNGs", 2003): something that takes a few
            // instructions and cannot be left out.
            value ^= value << 13;
            value ^= value >> 17;
            value = std::hint::black_box(value ^ value << 5);
        }
        self.register.store(value, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Model {
    fn default() -> Model {
        let devices: Vec<Device> = (0..=MAX_VCPUS).map(|_| Device::default()).collect();
        let mut map = BTreeMap::new();
        for number in 0..devices.len() {
            map.insert(port_of(number), (4, Some(number)));
        }
        for range in 0.. {
            if map.len() == RANGES {
                break;
            }
            map.insert(range * RANGE_LENGTH * 8, (RANGE_LENGTH, None));
        }
        let tree = Tree::new(devices.len());
        let resolved = tree.by_path(&path_of(0)).unwrap_or(0);
        Model {
            lock: Mutex::default(),
            devices,
            map,
            tree,
            resolved,
        }
    }
}

/// A device's port.
fn port_of(device: usize) -> u16 {
    match device {
        0 => port::USER_WRITE,
        other => port::LOCKED + 4 * (other as u16 - 1),
    }
}

/// A device's path in the tree.
fn path_of(device: usize) -> String {
    format!("{UNATTACHED}/device[{device}]")
}

impl Model {
    /// The lock around all devices.
    #[inline(always)]
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device behind a port; a write to none is lost, as on a real bus.
    #[inline(always)]
    pub(super) fn find(&self, how: Dispatch, port: u16) -> Option<&Device> {
        match how {
            Dispatch::Direct if port == port::USER_WRITE => self.devices.first(),
            Dispatch::Direct => {
                let number = port.wrapping_sub(port::LOCKED) / 4 + 1;
                self.devices.get(usize::from(number))
            }
            Dispatch::IntervalMap => self.by_interval(port),
            Dispatch::TreeByPath => {
                let object = self.tree.by_path("/machine/unattached/device[0]")?;
                self.of_object(object)
            }
            Dispatch::TreeByType => self.of_object(self.tree.by_type(DEVICE_TYPE)?),
            Dispatch::TreeOnce => self.of_object(self.resolved),
        }
    }

    #[inline(never)]
    fn by_interval(&self, port: u16) -> Option<&Device> {
        let (&first, &(length, device)) = self.map.range(..=port).next_back()?;
        if port - first >= length {
            return None;
        }
        self.devices.get(device?)
    }

    fn of_object(&self, object: usize) -> Option<&Device> {
        self.devices.get(self.tree.objects.get(object)?.device?)
    }
}

/// A tree of typed objects, each found by its name among its parent's children, as QEMU's object
/// model has them.
#[derive(Debug)]
struct Tree {
    objects: Vec<Object>,
    /// Each type's parent.
    types: HashMap<&'static str, Option<&'static str>>,
}

#[derive(Debug)]
struct Object {
    type_name: &'static str,
    children: HashMap<String, usize>,
    device: Option<usize>,
}

impl Tree {
    /// A tree of [`TREE_OBJECTS`]: a machine, its devices, and what these consist of.
    fn new(devices: usize) -> Tree {
        let types = [
            ("object", None),
            ("container", Some("object")),
            (OTHER_TYPE, Some("object")),
            ("device", Some("object")),
            ("sys-bus-device", Some("device")),
            (DEVICE_TYPE, Some("sys-bus-device")),
        ]
        .into_iter()
        .collect();
        let mut tree = Tree {
            objects: Vec::new(),
            types,
        };
        let root = tree.add(None, "", "container", None);
        let machine = tree.add(Some(root), "machine", "container", None);
        tree.add(Some(machine), "peripheral", "container", None);
        let unattached = tree.add(Some(machine), "unattached", "container", None);
        let mut parents = Vec::new();
        for number in 0..devices {
            let name = format!("device[{number}]");
            parents.push(tree.add(Some(unattached), &name, DEVICE_TYPE, Some(number)));
        }
        // Memory regions and interrupt lines, as most of QEMU's objects are.
        let mut number = 0;
        while tree.objects.len() < TREE_OBJECTS {
            let parent = if number % 2 == 0 {
                unattached
            } else {
                parents[number % parents.len()]
            };
            tree.add(Some(parent), &format!("region[{number}]"), OTHER_TYPE, None);
            number += 1;
        }
        tree
    }

    fn add(
        &mut self,
        parent: Option<usize>,
        name: &str,
        type_name: &'static str,
        device: Option<usize>,
    ) -> usize {
        let new = self.objects.len();
        self.objects.push(Object {
            type_name,
            children: HashMap::default(),
            device,
        });
        if let Some(parent) = parent {
            self.objects[parent].children.insert(name.to_owned(), new);
        }
        new
    }

    /// The device's object of that path.
    #[inline(never)]
    fn by_path(&self, path: &str) -> Option<usize> {
        let mut at = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.objects[at].children.get(name)?;
        }
        self.is_a(at, DEVICE_TYPE).then_some(at)
    }

    /// The first object of that type, looked for in all of the tree: a second one would make the
    /// answer ambiguous.
    #[inline(never)]
    fn by_type(&self, type_name: &str) -> Option<usize> {
        let mut found = None;
        self.search(0, type_name, &mut found);
        found
    }

    fn search(&self, at: usize, type_name: &str, found: &mut Option<usize>) {
        if self.is_a(at, type_name) && found.is_none_or(|other| at < other) {
            *found = Some(at);
        }
        for &child in self.objects[at].children.values() {
            self.search(child, type_name, found);
        }
    }

    /// Whether an object's type is this one or derived from it.
    fn is_a(&self, object: usize, type_name: &str) -> bool {
        let mut at = Some(self.objects[object].type_name);
        while let Some(name) = at {
            if name == type_name {
                return true;
            }
            at = self.types.get(name).copied().flatten();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_finds_the_same_device() {
        let model = Model::default();
        let direct = model.find(Dispatch::Direct, port::USER_WRITE);
        let direct = direct.expect("the port has a device");
        for how in [
            Dispatch::IntervalMap,
            Dispatch::TreeByPath,
            Dispatch::TreeByType,
            Dispatch::TreeOnce,
        ] {
            let found = model.find(how, port::USER_WRITE);
            assert!(
                found.is_some_and(|found| std::ptr::eq(found, direct)),
                "{how:?}"
            );
        }
        assert_eq!(model.tree.objects.len(), TREE_OBJECTS);
    }

    #[test]
    fn each_vcpu_has_a_device_of_its_own_and_other_ports_have_none() {
        let model = Model::default();
        for vcpu in 0..MAX_VCPUS as u16 {
            let port = port::LOCKED + 4 * vcpu;
            let found = [Dispatch::Direct, Dispatch::IntervalMap].map(|how| model.find(how, port));
            let [direct, mapped] = found.map(|found| found.expect("a device"));
            assert!(std::ptr::eq(direct, mapped));
            assert!(std::ptr::eq(direct, &model.devices[usize::from(vcpu) + 1]));
        }
        for how in [Dispatch::Direct, Dispatch::IntervalMap] {
            assert!(model.find(how, 0x80).is_none(), "{how:?}");
        }
    }
}
