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
# packages_npm FOLDER installs those of purpose npm, unmodified, in FOLDER/node_modules, by the machine's npm or Debian's. No program of
# theirs is run and nothing else is downloaded; there is no lock file, since it would name a registry.
packages_npm() {
	local wanted
	command -v npm >/dev/null || packages_need node || return 1
	wanted=$(awk '$1 == "npm" { print $2 }' "$(dirname "${BASH_SOURCE[0]}")/packages")
	[[ $(cat "$1/installed" 2>/dev/null) != "$wanted" ]] || return 0
	rm -rf "$1"
	mkdir -p "$1"
	# shellcheck disable=SC2086
	if ! npm install --prefix "$1" --no-package-lock --ignore-scripts --no-audit --no-fund $wanted >"$1/npm.log" 2>&1; then
		echo "npm packages cannot be installed: $wanted (see $1/npm.log)" >&2
		return 1
	fi
	echo "$wanted" >"$1/installed"
}
# packages_parts FOLDER unpacks from Debian's packages of purpose parts, unmodified, only the named paths to FOLDER, without installing them.
packages_parts() {
	local wanted package paths
	wanted=$(grep '^parts ' "$(dirname "${BASH_SOURCE[0]}")/packages")
	[[ $(cat "$1/unpacked" 2>/dev/null) != "$wanted" ]] || return 0
	rm -rf "$1"
	mkdir -p "$1"
	while read -r _ package paths; do
		# shellcheck disable=SC2086
		if ! { (cd "$1" && { apt-get download "$package" || { apt-get update && apt-get download "$package"; }; }) &&
			dpkg-deb --fsys-tarfile "$1/$package"_*.deb | tar -x -C "$1" --wildcards $paths; } >"$1/parts.log" 2>&1; then
			echo "a package cannot be had: $package (see $1/parts.log)" >&2
			return 1
		fi
		rm -f "$1/$package"_*.deb
	done <<<"$wanted"
	echo "$wanted" >"$1/unpacked"
}
