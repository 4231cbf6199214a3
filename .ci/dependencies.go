// Command dependencies fails on a direct dependency that is deprecated, or whose version is
// retracted. It also says which have a newer release, and which the module proxy says nothing
// about.
//
//	go run .ci/dependencies.go
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// exceptions maps the modules that may be deprecated to the reasons.
var exceptions = map[string]string{
	"github.com/lestrrat-go/jwx/v2": "only authz/token imports it; see SECURITY.md",
}

type module struct {
	Path, Version, Deprecated string
	Indirect                  bool
	Retracted                 []string
	Update                    *module
	Error                     *struct{ Err string }
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	out, err := output("go", "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var file struct {
		Require []module
		Replace []struct{ Old module }
		Tool    []module
	}
	if err := json.Unmarshal(out, &file); err != nil {
		return err
	}
	var replaced, direct, latest []string
	for _, r := range file.Replace {
		replaced = append(replaced, r.Old.Path)
	}
	for _, m := range file.Require {
		tool := slices.ContainsFunc(file.Tool, func(tool module) bool {
			return strings.HasPrefix(tool.Path, m.Path+"/")
		})
		if (tool || !m.Indirect) && !slices.Contains(replaced, m.Path) {
			direct, latest = append(direct, m.Path), append(latest, m.Path+"@latest")
		}
	}
	// go list -u ignores errors of the proxy; @latest reports them.
	answers, err := modules("-e", latest)
	if err != nil {
		return err
	}
	unchecked := map[string]bool{}
	for _, m := range answers {
		if m.Error != nil {
			unchecked[m.Path] = true
			fmt.Printf("not checked: %s: %s\n", m.Path, oneLine(m.Error.Err))
		}
	}
	used, err := modules("-u", direct)
	if err != nil {
		return err
	}
	faults := 0
	for _, m := range used {
		if m.Error != nil && !unchecked[m.Path] {
			fmt.Printf("not checked: %s: %s\n", m.Path, oneLine(m.Error.Err))
		}
		if len(m.Retracted) > 0 {
			faults++
			fmt.Printf("retracted: %s %s: %s\n", m.Path, m.Version, strings.Join(m.Retracted, "; "))
		}
		if why := exceptions[m.Path]; m.Deprecated != "" && why != "" {
			fmt.Printf("deprecated, by exception: %s: %s\n", m.Path, why)
		} else if m.Deprecated != "" {
			faults++
			fmt.Printf("deprecated: %s: %s\n", m.Path, m.Deprecated)
		}
		if m.Update != nil {
			fmt.Printf("newer: %s %s, used is %s\n", m.Path, m.Update.Version, m.Version)
		}
	}
	fmt.Printf("%d direct dependencies, %d of them not checked\n", len(direct), len(unchecked))
	if faults > 0 {
		return fmt.Errorf("%d direct dependencies are deprecated or retracted: "+
			"replace them or add an exception to .ci/dependencies.go", faults)
	}
	return nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func modules(mode string, queries []string) (all []module, err error) {
	out, err := output("go", append([]string{"list", "-m", "-e", "-json", mode}, queries...)...)
	for decoder := json.NewDecoder(bytes.NewReader(out)); err == nil; {
		var m module
		if err = decoder.Decode(&m); err == nil {
			all = append(all, m)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return all, err
}

func output(name string, args ...string) ([]byte, error) {
	command := exec.Command(name, args...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}
