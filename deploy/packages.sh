# shellcheck shell=bash
# Sourced: packages_need PURPOSE... installs what is missing of deploy/packages.
packages_need() {
	local file purpose package missing=()
	file=$(dirname "${BASH_SOURCE[0]}")/packages
	while read -r purpose package; do
		[[ $purpose == "#" || -z $package || " $* " != *" $purpose "* ]] && continue
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done <"$file"
	((${#missing[@]} == 0)) && return 0
	echo "installing: ${missing[*]}"
	if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }; } \
		>"${TMPDIR:-/tmp}/xpool-apt.log" 2>&1; then
		echo "packages are missing and cannot be installed: ${missing[*]} ($(grep -h '^E:' "${TMPDIR:-/tmp}/xpool-apt.log" | tail -n 1))" >&2
		return 1
	fi
}
