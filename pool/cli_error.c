/* What `xe` says about errors that people meet; the others are shown by code and parameters. */
#include "pool/cli_priv.h"

static const struct {
	const struct err_code *code;
	const char *text;
} texts[] = {
	{ ERR_CANNOT_CONTACT_HOST, "The host, or the pool's coordinator, cannot be reached." },
	{ ERR_DEVICE_ALREADY_ATTACHED, "The device is attached already." },
	{ ERR_DEVICE_ALREADY_DETACHED, "The device is not attached." },
	{ ERR_DEVICE_ALREADY_EXISTS, "The VM has a device of that number already." },
	{ ERR_FIELD_TYPE_ERROR, "The value is missing or not of the field's type." },
	{ ERR_HANDLE_INVALID, "There is no such object (any more)." },
	{ ERR_HOST_DISABLED, "The host takes no VMs: it is disabled." },
	{ ERR_HOST_IN_EMERGENCY_MODE,
		"This member has no contact with a majority of the pool: nothing can be changed "
		"here." },
	{ ERR_HOST_IS_LIVE, "The host is alive." },
	{ ERR_HOST_NOT_DISABLED, "The host must be disabled first." },
	{ ERR_HOST_NOT_ENOUGH_FREE_MEMORY, "The host has not enough free memory." },
	{ ERR_HOST_OFFLINE, "The host does not answer; what it was doing may or may not have been "
			    "done." },
	{ ERR_INTERNAL_ERROR, "Something failed inside the pool." },
	{ ERR_INVALID_VALUE, "The value is not allowed here." },
	{ ERR_MAP_DUPLICATE_KEY, "The map has that key already." },
	{ ERR_NO_HOSTS_AVAILABLE, "No host can run this VM now." },
	{ ERR_OPERATION_NOT_ALLOWED, "The operation is not allowed." },
	{ ERR_OTHER_OPERATION_IN_PROGRESS, "Another operation on the object is under way." },
	{ ERR_RBAC_PERMISSION_DENIED, "Your roles do not permit this." },
	{ ERR_SR_BACKEND_FAILURE, "The storage has failed." },
	{ ERR_SR_FULL, "The SR is full." },
	{ ERR_SR_HAS_PBD, "The SR is still connected to a host." },
	{ ERR_SR_HAS_NO_PBDS, "The SR is connected to no host." },
	{ ERR_SR_NOT_EMPTY, "The SR is not empty." },
	{ ERR_TASK_CANCELLED, "The task was cancelled." },
	{ ERR_TOO_MANY_PENDING_TASKS, "Too many things are waiting already; try again later." },
	{ ERR_UUID_INVALID, "There is no object of that class with that uuid." },
	{ ERR_VALUE_NOT_SUPPORTED, "The value is not supported." },
	{ ERR_VBD_IS_EMPTY, "The drive is empty." },
	{ ERR_VBD_NOT_EMPTY, "The drive holds a medium already." },
	{ ERR_VBD_NOT_REMOVABLE_MEDIA, "The drive's medium cannot be changed." },
	{ ERR_VDI_IN_USE, "The virtual disk is in use." },
	{ ERR_VDI_READONLY, "The virtual disk can only be read." },
	{ ERR_VM_BAD_POWER_STATE, "The VM is in another power state than this needs." },
	{ ERR_VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT, "The guest did not take notice of the request." },
	{ ERR_VM_IS_TEMPLATE, "This is a template, not a VM." },
	{ ERR_VM_MISSING_PV_DRIVERS, "The guest has no drivers that could do this." },
	{ ERR_VM_REQUIRES_SR, "The VM needs an SR that the host does not have." },
	{ ERR_VM_REQUIRES_NETWORK, "The VM needs a network that the host does not have." },
	{ ERR_VM_SHUTDOWN_TIMEOUT, "The guest has not shut down in time." },
};

const char *cli_error_text(const struct err_code *code)
{
	for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].code == code)
			return texts[i].text;
	return NULL;
}
