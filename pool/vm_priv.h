/* The class VM: what its files share. */
#pragma once

#include "pool/operation_priv.h"

/* vm_guest.c: VM_guest_metrics follows what the guest of a domain says. */
void guest_facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const struct facts *f);
bool guest_facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f);

/* vm_console.c: of a VM with a domain on the host. */
void console_facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const char *host);
bool console_facts_differ(const struct db_view *view, const struct db_row *vm, const char *host);
/* Of one without. */
void console_drop(struct db_txn *txn, const struct db_view *view, const char *vm);

/* vm.c: the task's VM is Suspended. */
bool vm_suspended(void *task);
/* The metrics of a VM that is made now, under uuid and ref. */
void vm_metrics_make(struct db_txn *txn, struct env *env, const char *uuid, const char *ref);

/* vm_suspend.c */
/* A suspended VM only loses its memory image: into the finishing transaction. 0, ERR_DEAD. */
int vm_forget_image(struct job *job, void *task, const char *vm_ref);
/* Where the memory of a VM that runs on the host would go; NULL: there is no such SR. */
const struct db_row *vm_image_sr(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host);
/* An empty disk for it; place: {"disk": ...} in the agent's words. It goes again unless the task
 * ends well. 0, ERR_API, ERR_DEAD. */
int vm_image_disk(struct job *job, void *task, const char *vm_ref, struct val *place,
	const char **ref_out, struct err *err);

/* vm_metadata.c */
/* hvm, pv or pvh: what its next domain is. */
const char *vm_domain_type(const struct db_row *vm);
/* The same of fields domain_type and HVM_boot_policy. */
const char *vm_domain_type_of(const char *type, const char *boot_policy);
/* What the agent of `host` makes the domain of the VM from: "metadata" of member/agent.json. */
struct val vm_metadata(struct arena *a, const struct db_view *view, const struct db_row *vm,
	const struct db_row *host);
/* Tell it to the agent of this host, for the task's VM. 0, ERR_API, ERR_DEAD. */
int vm_push_metadata(struct job *job, void *task, struct err *err);

/* vm_memory.c */
/* VM.memory_overhead of a new VM with these fields, those that are void at their defaults. */
struct val vm_overhead_of(const struct val *fields);
