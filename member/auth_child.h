/* What `xpool-agent --auth` is: a process that answers one question about an account and ends.
 * Linked into the program only, so that PAM is in no other. */
#pragma once

/* pam: name of a PAM service, or the path of a file that is one. directory: path of the JSON file
 * of the directory "file". The status for exit: member/child.h. */
int auth_child_main(const char *pam, const char *directory);
