/* What `xpool-agent --xen` is: a process that lets libxenguest work on one domain, and ends. The
 * status for exit: member/child.h. */
#pragma once

int xen_child_main(void);
