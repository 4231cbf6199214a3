package cli

import (
	"fmt"
	"runtime/debug"
	"strings"
)

const library = "github.com/oasgate/oasgate"

// Version describes the build of a program: its module and version, the revision, the version of
// Go, and the version of this library if it is another module.
func Version(name string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return name
	}
	return version(name, info)
}

func version(name string, info *debug.BuildInfo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", name, info.Main.Version)
	if info.Main.Version == "" {
		b.WriteString("(devel)")
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" {
		fmt.Fprintf(&b, ", revision %s", revision)
		if settings["vcs.modified"] == "true" {
			b.WriteString(" (modified)")
		}
	}
	fmt.Fprintf(&b, ", %s", info.GoVersion)
	for _, module := range info.Deps {
		if module.Path == library {
			fmt.Fprintf(&b, "\n%s %s", library, module.Version)
		}
	}
	return b.String()
}
