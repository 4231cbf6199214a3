#!/bin/sh
# Takes Swagger UI from its npm package: compressed, with its licence, without source maps. Run by
# go generate. It does nothing while swagger-ui/VERSION is the version below, so neither builds nor
# CI need npm.
set -eu
version=5.35.0
into=$PWD/swagger-ui
[ "$(cat "$into/VERSION" 2>/dev/null)" != "$version" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "swagger-ui-dist@$version" >/dev/null
tar -xzf "swagger-ui-dist-$version.tgz"
for name in swagger-ui-bundle.js swagger-ui.css; do
	sed '/sourceMappingURL/d' "package/$name" | gzip -9n >"$into/$name.gz"
done
cp package/LICENSE package/NOTICE package/swagger-ui-bundle.js.LICENSE.txt "$into"
echo "$version" >"$into/VERSION"
