// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Where the time between a guest's exit and its next entry goes, per vCPU and exit reason.
//
// One program on kvm_entry does nearly all: KVM itself notes the TSC when a guest has exited (last_guest_tsc) and when a vCPU
// is put (last_host_tsc), as it is on the way to user space, so that neither kvm_exit nor kvm_userspace_exit need a program. One on
// sched_switch tells what was slept and what was taken away. Where it has to be exact, two more tell when a vCPU's thread
// went to user space and when it came back.
//
// Where the kernel's structures have their fields, the loader finds out from BTF and writes into the code (FIELDS, NUMBERS).
// Times are nanoseconds of CLOCK_MONOTONIC.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef _Bool bool;

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_F_MMAPABLE = 1 << 10,
};

/* What libbpf's headers would bring: sections, maps' types as BTF, and helpers by number (linux/bpf.h). */
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) value *name

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

#define SLOTS 4096		/* vCPUs that can be told apart: a power of two */
#define NEAR 4			/* slots looked at for a vCPU, from its own on */
#define CODES 256		/* indices of exit reasons; the last one is for all others */
#define OTHER (CODES - 1)
#define SUB_BITS 5		/* buckets of a power of two: 2^5, so that one is 1/32 wide */
#define BUCKETS 1024		/* up to 2^36 ns */
#define SVM_EXIT_IOIO 0x7b
#define SVM_EXIT_VMRUN 0x80
#define EXIT_REASON_IO_INSTRUCTION 30
#define SHORT 4096		/* ns: what takes no longer has neither slept nor polled */

/* Parts of the time between an exit and the next entry. */
enum part { KERNEL, USER, ASLEEP, POLLING, PREEMPTED, PARTS };

/*
 * Where the kernel's structures have their fields, as the loader writes it into the code: an offset from FIELDS on is the number of
 * a field, and so is a constant from NUMBERS on. A constant in memory would take a load more for each.
 */
#define FIELDS 0x7000
#define NUMBERS 0x70000000
#define FIELD(number) (FIELDS + 8 * (number))

enum field {
	VCPU_ID,		/* from a vCPU */
	LAST_GUEST_TSC,
	L1_TSC_OFFSET,
	LAST_HOST_TSC,
	IO_EXITS,
	NESTED_RUN,
	TSC_RATIO,
	POLL_SUCCESS_NS,
	POLL_FAIL_NS,
	TASK_STATE,		/* from a task */
};

enum number {
	REASON,			/* from a vCPU: its exit reason; AMD: the pointer to its VMCB */
	VMCB_CODE,		/* from a VMCB: its exit code */
};

#define LOAD(type, from, field) (*(type *)((char *)(from) + FIELD(field)))

/* What is read seldom. Constant when the programs are verified. */
struct layout {
	u32 cells;		/* entries of the maps */
	u32 blocks;
	u64 clock;		/* address of the kernel's clock data (tk_fast_mono) */
	u8 index[1280];		/* exit code to index */
};
const volatile struct layout layout = {};

/* What a program is made for. */
struct kind {
	bool amd;
	bool clock_data;	/* the kernel's clock data tells when the TSC was this; else kvm_exit has a program */
	bool histograms;	/* they are kept, and time in user space is told from the kernel's */
	bool exact;		/* by programs of its own */
};

/* The kernel's clock, as it was a moment ago. */
struct clock {
	u64 until_ns;
	u64 base_ns;
	u64 cycle_last;
	u64 xtime_nsec;
	u32 mult;
	u32 shift;
};

struct vcpu_slot {
	u64 vcpu;		/* address; 0: free */
	u64 task;		/* address of its thread's task; 0: it has not been entered */
	u64 entered_ns;		/* the last entry */
	u64 exit_ns;		/* the last exit, where kvm_exit has a program */
	u64 run_ns;		/* the last KVM_RUN's beginning */
	u64 user_ns;		/* time in user space before that */
	u64 left_ns;		/* when its thread went to user space last */
	u64 off_ns;		/* when its thread went off its CPU last */
	u64 on_ns;		/* when it came back; 0: it has not */
	u64 io_exits;		/* KVM's own count at the last entry */
	u64 asleep_ns;		/* how long it has been off of its own will */
	u64 preempted_ns;	/* and against it */
	u64 asleep_seen_ns;	/* these at the end of the last exit that was long */
	u64 preempted_seen_ns;
	u64 polled_seen_ns;
	u64 vmcb;		/* AMD: address of the VMCB that was entered */
	u32 tgid;
	u32 tid;
	u32 vcpu_id;
	u16 off_asleep;		/* whether it went off of its own will */
	u8 nested;		/* AMD: whether the guest has guests of its own */
	u8 scaled;		/* whether its TSC is, so that KVM's times are none of the host's */
	struct clock clock;
	u16 cell[CODES];	/* cell of a reason, from 1 */
};

/* Sums of a vCPU's exits for one reason. The parts sum to the whole. */
struct cell {
	u64 count;
	u64 user_count;		/* of these through user space */
	u64 untimed;		/* of these without a time: entered again at once, or the guest's TSC is scaled */
	u64 ns[PARTS];
	u32 tgid;		/* whose they are */
	u32 tid;
	u32 vcpu_id;
	u32 index;
	u32 block[PARTS];	/* histograms, from 1 */
	u32 ended;		/* the vCPU is no more */
};

struct histogram {
	u32 count[BUCKETS];
};

struct vcpu_slot slots[SLOTS];

/* What could not be counted, and what is used up. */
struct totals {
	u64 no_slot;		/* entries of vCPUs beyond the table's room */
	u64 no_thread;		/* vCPUs whose threads' sleep is not seen */
	u64 no_cell;		/* exits for whose reason no cell was left */
	u64 no_block;		/* durations for which no histogram was left */
	u64 unpaired;		/* entries without an exit before them */
	u64 uncertain;		/* exits of which nobody knows whether they went to user space */
	u64 cells;
	u64 blocks;
} totals;

/* Slots of vCPUs' threads, by task. */
struct thread {
	u64 task;
	u32 slot;
	u32 unused;
};
struct thread threads[SLOTS];

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cell);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct histogram);
} blocks SEC(".maps");

/* struct tk_read_base and what is before it in struct tk_fast: sequence counts, then two copies. */
struct read_base {
	u64 clock;
	u64 mask;
	u64 cycle_last;
	u32 mult;
	u32 shift;
	u64 xtime_nsec;
	u64 base_ns;
	u64 base_real;
};
struct fast_clock {
	u32 sequence;
	u32 unused;
	struct read_base base[2];
};

/* A place in a table for an address. The verifier lets nobody calculate with a typed pointer; half of it is a number. */
static __always_inline u32 own_slot(u64 address)
{
	u32 low;

	asm volatile("%0 = %1" : "=w"(low) : "w"((u32)address));
	return (low >> 6) * 0x9E3779B1u >> 20 & (SLOTS - 1);
}

/* A slot for a vCPU that has none in its own place; SLOTS: there is none near it. */
static __noinline u32 take_slot(u32 own, u64 vcpu)
{
	for (u32 near = 0; near < NEAR; near++) {
		struct vcpu_slot *slot = &slots[(own + near) & (SLOTS - 1)];

		if (slot->vcpu == vcpu)
			return (own + near) & (SLOTS - 1);
	}
	for (u32 near = 0; near < NEAR; near++) {
		struct vcpu_slot *slot = &slots[(own + near) & (SLOTS - 1)];

		if (slot->vcpu == 0 && __sync_val_compare_and_swap(&slot->vcpu, 0, vcpu) == 0)
			return (own + near) & (SLOTS - 1);
	}
	__sync_fetch_and_add(&totals.no_slot, 1);
	return SLOTS;
}

static __noinline u32 find_slot(u32 own, u64 vcpu)
{
	for (u32 near = 0; near < NEAR; near++) {
		struct vcpu_slot *slot = &slots[(own + near) & (SLOTS - 1)];

		if (slot->vcpu == vcpu)
			return (own + near) & (SLOTS - 1);
	}
	return SLOTS;
}

static __noinline int forget_thread(u32 own, u64 task)
{
	for (u32 near = 0; near < NEAR; near++) {
		struct thread *thread = &threads[(own + near) & (SLOTS - 1)];

		if (thread->task == task)
			thread->task = 0;
	}
	return 0;
}

static __noinline int take_thread(u64 task, u32 slot)
{
	u32 own = own_slot(task);

	for (u32 near = 0; near < NEAR; near++) {
		struct thread *thread = &threads[(own + near) & (SLOTS - 1)];

		if (thread->task == task || (thread->task == 0 &&
		    __sync_val_compare_and_swap(&thread->task, 0, task) == 0)) {
			thread->slot = slot;
			return 0;
		}
	}
	__sync_fetch_and_add(&totals.no_thread, 1);
	return 0;
}

/* When the TSC was this, by the clock that bpf_ktime_get_ns reads; the end of time where that is not known. */
static __always_inline u64 at_tsc(struct clock *clock, u64 tsc, u64 now)
{
	if (now >= clock->until_ns) {
		struct fast_clock fast;
		struct read_base *base;
		u32 again;

		if (bpf_probe_read_kernel(&fast, sizeof(fast), (void *)layout.clock))
			return ~0ULL;
		base = &fast.base[fast.sequence & 1];
		clock->base_ns = base->base_ns;
		clock->cycle_last = base->cycle_last;
		clock->xtime_nsec = base->xtime_nsec;
		clock->mult = base->mult;
		clock->shift = base->shift & 63;
		if (bpf_probe_read_kernel(&again, sizeof(again), (void *)layout.clock) ||
		    again != fast.sequence)
			return ~0ULL;
		clock->until_ns = now + 1000000;
	}
	return clock->base_ns +
	       ((s64)((tsc - clock->cycle_last) * clock->mult + clock->xtime_nsec) >> (clock->shift & 63));
}

/* The bucket of a duration: itself below 64, else 32 for each power of two. */
static __always_inline u32 bucket(u64 ns)
{
	u32 v, up = 0;

	if (ns >> 32) {
		if (ns >> 36)
			return BUCKETS - 1;
		v = ns >> 4;
		up = 4;
	} else {
		v = ns;
	}
	if (v >> 22) {
		v >>= 16;
		up += 16;
	}
	if (v >> 14) {
		v >>= 8;
		up += 8;
	}
	if (v >> 10) {
		v >>= 4;
		up += 4;
	}
	if (v >> 8) {
		v >>= 2;
		up += 2;
	}
	if (v >> 7) {
		v >>= 1;
		up += 1;
	}
	if (v >> 6) {
		v >>= 1;
		up += 1;
	}
	return (up << SUB_BITS) + v;
}

/* Takes a duration into the histogram of a part. The first one takes a block for it. */
static __always_inline void note(struct cell *cell, enum part part, u64 ns)
{
	struct histogram *histogram;
	u32 block = cell->block[part];

	if (!block) {
		block = __sync_fetch_and_add(&totals.blocks, 1) + 1;
		if (block >= layout.blocks) {
			__sync_fetch_and_add(&totals.no_block, 1);
			return;
		}
		cell->block[part] = block;
	}
	histogram = bpf_map_lookup_elem(&blocks, &block);
	if (histogram)
		histogram->count[bucket(ns) & (BUCKETS - 1)]++;
}

/* The number of a new cell for a reason of this vCPU; 0: there is none left. */
static __noinline u32 take_cell(u32 at, u32 index)
{
	struct vcpu_slot *slot = &slots[at & (SLOTS - 1)];
	u32 number = __sync_fetch_and_add(&totals.cells, 1) + 1;
	struct cell *cell = 0;

	if (number < layout.cells && number < (1 << 16))
		cell = bpf_map_lookup_elem(&cells, &number);
	if (!cell) {
		__sync_fetch_and_add(&totals.no_cell, 1);
		return 0;
	}
	cell->tgid = slot->tgid;
	cell->tid = slot->tid;
	cell->vcpu_id = slot->vcpu_id;
	cell->index = index;
	slot->cell[index & (CODES - 1)] = number;
	return number;
}

/* The index of the reason for which a vCPU exited. */
static __always_inline u32 reason(struct vcpu_slot *slot, void *vcpu, struct kind kind)
{
	u64 from = kind.amd ? slot->vmcb + (NUMBERS + VMCB_CODE) : (u64)vcpu + (NUMBERS + REASON);
	u64 io_exits = LOAD(u64, vcpu, IO_EXITS);
	u32 code = 0;

	/* KVM counts these where it handles them, and asking for the code takes ten times as long. */
	if (io_exits != slot->io_exits) {
		slot->io_exits = io_exits;
		return kind.amd ? SVM_EXIT_IOIO : EXIT_REASON_IO_INSTRUCTION;
	}
	if (bpf_probe_read_kernel(&code, sizeof(code), (void *)from))
		return OTHER;
	code &= 0xffff;
	if (kind.amd && code == SVM_EXIT_VMRUN)
		slot->nested = 1;
	return code < sizeof(layout.index) ? layout.index[code] : OTHER;
}

static __always_inline u64 polled(void *vcpu)
{
	return LOAD(u64, vcpu, POLL_SUCCESS_NS) + LOAD(u64, vcpu, POLL_FAIL_NS);
}

static __always_inline void count(struct cell *cell, enum part part, u64 ns, struct kind kind)
{
	cell->ns[part] += ns;
	if (kind.histograms)
		note(cell, part, ns);
}

/* A vCPU's exit that took so long, of it so long in user space, as far as that is known. */
static __always_inline void ended(struct vcpu_slot *slot, u32 at, void *vcpu, u64 whole,
				  bool timed, bool through_user, u64 user, struct kind kind)
{
	u64 asleep = 0, preempted = 0, polling = 0;
	u32 index = reason(slot, vcpu, kind);
	u32 number = slot->cell[index & (CODES - 1)];
	struct cell *cell;

	if (!number)
		number = take_cell(at, index);
	cell = bpf_map_lookup_elem(&cells, &number);
	if (!number || !cell)
		return;
	cell->count++;
	if (!timed) {
		cell->untimed++;
		return;
	}
	if (whole > SHORT) {
		u64 now_polled = polled(vcpu);

		polling = now_polled - slot->polled_seen_ns;
		slot->polled_seen_ns = now_polled;
		asleep = slot->asleep_ns - slot->asleep_seen_ns;
		slot->asleep_seen_ns = slot->asleep_ns;
		preempted = slot->preempted_ns - slot->preempted_seen_ns;
		slot->preempted_seen_ns = slot->preempted_ns;
		if (asleep | preempted | polling) {
			/* What is told by different clocks may overlap by a moment. */
			if (asleep + preempted + polling > whole)
				polling = 0;
			if (asleep + preempted > whole) {
				asleep = asleep > whole ? whole : asleep;
				preempted = whole - asleep;
			}
			if (asleep)
				count(cell, ASLEEP, asleep, kind);
			if (preempted)
				count(cell, PREEMPTED, preempted, kind);
			if (polling)
				count(cell, POLLING, polling, kind);
			whole -= asleep + preempted + polling;
		}
	}
	if (!through_user) {
		user = 0;
	} else {
		user = user > whole ? whole : user;
		cell->user_count++;
		count(cell, USER, user, kind);
	}
	count(cell, KERNEL, whole - user, kind);
}

static __always_inline int entered(u64 *ctx, struct kind kind)
{
	void *vcpu = (void *)ctx[0];
	u64 now = bpf_ktime_get_ns();
	u64 exit, left = 0, user = 0;
	bool through_user = 0;
	struct vcpu_slot *slot;
	u32 at;

	/* The verifier of Linux 6.12 and later takes a tracepoint's pointers for what may be none. */
	if (!vcpu)
		return 0;
	at = own_slot((u64)vcpu);
	slot = &slots[at];
	if (slot->vcpu != (u64)vcpu) {
		at = take_slot(at, (u64)vcpu);
		if (at >= SLOTS)
			return 0;
		slot = &slots[at];
	}
	if (!slot->task) {
		u64 ids = bpf_get_current_pid_tgid();

		slot->tgid = ids >> 32;
		slot->tid = (u32)ids;
		slot->vcpu_id = LOAD(u32, vcpu, VCPU_ID);
		slot->io_exits = LOAD(u64, vcpu, IO_EXITS);
		slot->polled_seen_ns = polled(vcpu);
		slot->task = bpf_get_current_task();
		take_thread(slot->task, at);
		slot->nested = LOAD(u64, vcpu, NESTED_RUN) != 0;
		slot->scaled = LOAD(u64, vcpu, TSC_RATIO) != (kind.amd ? 1ULL << 32 : 1ULL << 48);
	} else if (kind.clock_data && slot->scaled) {
		ended(slot, at, vcpu, 0, 0, 0, 0, kind);
	} else {
		if (kind.clock_data)
			exit = at_tsc(&slot->clock, LOAD(u64, vcpu, LAST_GUEST_TSC) -
				      LOAD(u64, vcpu, L1_TSC_OFFSET), now);
		else
			exit = slot->exit_ns;
		if (exit > now) {
			slot->io_exits = LOAD(u64, vcpu, IO_EXITS);
			__sync_fetch_and_add(&totals.unpaired, 1);
		} else if (exit < slot->entered_ns) {
			ended(slot, at, vcpu, 0, 0, 0, 0, kind);
		} else {
			if (kind.exact) {
				through_user = slot->run_ns > exit;
				user = slot->user_ns;
			} else if (kind.histograms) {
				/* When the vCPU was put last. */
				left = at_tsc(&slot->clock, LOAD(u64, vcpu, LAST_HOST_TSC), now);
				if (left > now)
					left = 0;
				through_user = left > exit;
				user = now - left;
				/* Off its CPU it is put, too. */
				if (slot->off_ns > exit) {
					u64 off = slot->asleep_ns + slot->preempted_ns -
						  slot->asleep_seen_ns - slot->preempted_seen_ns;

					if (slot->off_ns > left) {
						user = off > user ? 0 : user - off;
					} else if (left < slot->on_ns) {
						through_user = 0;
						__sync_fetch_and_add(&totals.uncertain, 1);
					}
				}
			}
			ended(slot, at, vcpu, now - exit, 1, through_user, user, kind);
		}
	}
	/* Where the guest has guests of its own the VMCB changes. */
	if (kind.amd && (!slot->vmcb || slot->nested)) {
		u64 vmcb = 0;

		bpf_probe_read_kernel(&vmcb, sizeof(vmcb), (void *)((u64)vcpu + (NUMBERS + REASON)));
		slot->vmcb = vmcb;
	}
	slot->entered_ns = now;
	return 0;
}

#define ENTRY(name, ...)					\
	SEC("tp_btf/kvm_entry")					\
	int name(u64 *ctx)					\
	{							\
		return entered(ctx, (struct kind){ __VA_ARGS__ });	\
	}

ENTRY(amd_light, .amd = 1, .clock_data = 1)
ENTRY(amd_usual, .amd = 1, .clock_data = 1, .histograms = 1)
ENTRY(amd_exact, .amd = 1, .clock_data = 1, .histograms = 1, .exact = 1)
ENTRY(amd_light_exit, .amd = 1)
ENTRY(amd_exact_exit, .amd = 1, .histograms = 1, .exact = 1)
ENTRY(intel_light, .clock_data = 1)
ENTRY(intel_usual, .clock_data = 1, .histograms = 1)
ENTRY(intel_exact, .clock_data = 1, .histograms = 1, .exact = 1)
ENTRY(intel_light_exit)
ENTRY(intel_exact_exit, .histograms = 1, .exact = 1)

static __always_inline int exited(u64 vcpu)
{
	u64 now = bpf_ktime_get_ns();
	struct vcpu_slot *slot;
	u32 at;

	if (!vcpu)
		return 0;
	at = own_slot(vcpu);
	slot = &slots[at];
	if (slot->vcpu != vcpu) {
		at = take_slot(at, vcpu);
		if (at >= SLOTS)
			return 0;
		slot = &slots[at];
	}
	slot->exit_ns = now;
	return 0;
}

/* Where the kernel's clock data cannot be used: the time of an exit. Up to Linux 5.18 the vCPU is the second argument. */
SEC("tp_btf/kvm_exit")
int exit_first(u64 *ctx)
{
	return exited(ctx[0]);
}

SEC("tp_btf/kvm_exit")
int exit_second(u64 *ctx)
{
	return exited(ctx[1]);
}

static __always_inline struct vcpu_slot *slot_of(u64 task)
{
	u32 own = own_slot(task);

#pragma unroll
	for (u32 near = 0; near < NEAR; near++) {
		struct thread *thread = &threads[(own + near) & (SLOTS - 1)];

		if (thread->task == task)
			return &slots[thread->slot & (SLOTS - 1)];
	}
	return 0;
}

/* A vCPU's thread goes to user space. */
SEC("tp_btf/kvm_userspace_exit")
int leave(u64 *ctx)
{
	struct vcpu_slot *slot = slot_of(bpf_get_current_task());

	if (slot)
		slot->left_ns = bpf_ktime_get_ns();
	return 0;
}

/* KVM_RUN begins, and time in user space ends. What was slept or taken away meanwhile is none of it. */
SEC("fentry/kvm_arch_vcpu_ioctl_run")
int run(u64 *ctx)
{
	u64 now = bpf_ktime_get_ns();
	u32 at = own_slot(ctx[0]);
	struct vcpu_slot *slot = &slots[at];
	u64 user;

	if (slot->vcpu != ctx[0]) {
		at = find_slot(at, ctx[0]);
		if (at >= SLOTS)
			return 0;
		slot = &slots[at];
	}
	user = now - slot->left_ns;
	if (slot->off_ns > slot->left_ns) {
		u64 off = slot->asleep_ns + slot->preempted_ns - slot->asleep_seen_ns -
			  slot->preempted_seen_ns;

		user = off > user ? 0 : user - off;
	}
	slot->user_ns = user;
	slot->run_ns = now;
	return 0;
}

/* A vCPU is no more. Its address, its VMCB's and its place are somebody else's next. */
SEC("fentry/kvm_arch_vcpu_destroy")
int destroy(u64 *ctx)
{
	u64 vcpu = ctx[0];
	u32 at = own_slot(vcpu);
	struct vcpu_slot *slot = &slots[at];

	if (slot->vcpu != vcpu) {
		at = find_slot(at, vcpu);
		if (at >= SLOTS)
			return 0;
		slot = &slots[at];
	}
	for (u32 index = 0; index < CODES; index++) {
		u32 number = slot->cell[index];
		struct cell *cell = bpf_map_lookup_elem(&cells, &number);

		if (number && cell)
			cell->ended = 1;
		slot->cell[index] = 0;
	}
	if (slot->task)
		forget_thread(own_slot(slot->task), slot->task);
	slot->task = 0;
	slot->entered_ns = 0;
	slot->exit_ns = 0;
	slot->run_ns = 0;
	slot->left_ns = 0;
	slot->off_ns = 0;
	slot->on_ns = 0;
	slot->nested = 0;
	slot->scaled = 0;
	slot->asleep_ns = 0;
	slot->preempted_ns = 0;
	slot->asleep_seen_ns = 0;
	slot->preempted_seen_ns = 0;
	slot->vmcb = 0;
	slot->clock.until_ns = 0;
	slot->vcpu = 0;
	return 0;
}

/* A vCPU's thread goes off its CPU, or comes back: of its own will, unless it could run on. */
SEC("tp_btf/sched_switch")
int switched(u64 *ctx)
{
	void *before = (void *)ctx[1], *next = (void *)ctx[2];
	struct vcpu_slot *slot;
	u64 now;

	if (!before || !next)
		return 0;
	slot = slot_of((u64)before);
	if (slot) {
		slot->off_ns = bpf_ktime_get_ns();
		slot->on_ns = 0;
		slot->off_asleep = !ctx[0] && LOAD(u32, before, TASK_STATE);
	}
	slot = slot_of((u64)next);
	if (slot && slot->off_ns && !slot->on_ns) {
		now = bpf_ktime_get_ns();
		if (slot->off_asleep)
			slot->asleep_ns += now - slot->off_ns;
		else
			slot->preempted_ns += now - slot->off_ns;
		slot->on_ns = now;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
