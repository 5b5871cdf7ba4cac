/* See pool_priv.h. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

bool peer_of(const struct db_view *view, const struct db_row *host, struct peer *out)
{
	const struct db_row *member =
		db_view_get(view, MODEL_CLASS__member, db_row_s(host, HOST_uuid));
	const char *ip = db_row_s(host, HOST_address);

	if (member == NULL ||
		strlen(db_row_s(member, _MEMBER_certificate)) >= sizeof out->certificate)
		return false;
	strcpy(out->certificate, db_row_s(member, _MEMBER_certificate));
	snprintf(out->address, sizeof out->address, strchr(ip, ':') != NULL ? "[%s]:%d" : "%s:%d",
		ip, POOL_API_PORT);
	return true;
}
