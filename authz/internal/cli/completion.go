// Package cli has what the programs of this module share: shell completion and --version.
package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Complete is the first argument with which the scripts of [Completion] call a program. The rest
// are the words of the command line; the last one is to be completed.
const Complete = "__complete"

// Completion is the command that prints a shell's completion script.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Shell to print the script for: bash, zsh or fish."`
}

// scripts maps shells to scripts. NAME stands for the program, and ID for its name as an
// identifier. Without candidates, the shell completes file names.
var scripts = map[string]string{
	"bash": `# To use it now: source <(NAME completion bash)
_ID() {
  mapfile -t COMPREPLY < <(compgen -W "$("$1" __complete "${COMP_WORDS[@]:1:COMP_CWORD}")" -- "$2")
}
complete -o default -F _ID NAME
`,
	"zsh": `#compdef NAME
# To use it now: source <(NAME completion zsh)
_ID() {
  local -a offered
  offered=("${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}")}")
  if [[ -n "$offered" ]]; then compadd -a offered; else _files; fi
}
compdef _ID NAME
`,
	"fish": `# To use it now: NAME completion fish | source
function __ID_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..]
end
complete -c NAME -a '(__ID_complete)'
`,
}

// Write prints the script for a program.
func (c *Completion) Write(w io.Writer, name string) error {
	id := strings.ReplaceAll(name, "-", "_")
	_, err := fmt.Fprint(w, strings.NewReplacer("NAME", name, "ID", id).Replace(scripts[c.Shell]))
	return err
}

// WriteWords prints the candidates for the last word, one per line. custom has completion functions
// for commands whose arguments kong passes through, by command name.
func WriteWords(
	w io.Writer, app *kong.Application, words []string, custom map[string]func([]string) []string,
) {
	if len(words) == 0 {
		return
	}
	last := words[len(words)-1]
	for _, word := range candidates(app.Node, words[:len(words)-1], words, custom) {
		if strings.HasPrefix(word, last) {
			fmt.Fprintln(w, word)
		}
	}
}

// candidates returns everything that can follow the words before the last one.
func candidates(
	node *kong.Node, before, words []string, custom map[string]func([]string) []string,
) []string {
	for i := 0; i < len(before); i++ {
		word := before[i]
		if strings.HasPrefix(word, "-") {
			flag := flagOf(node, word)
			if flag == nil || flag.IsBool() || strings.Contains(word, "=") {
				continue
			}
			if i++; i == len(before) { // the last word is the flag's value
				return enum(flag.Enum)
			}
			continue
		}
		child := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == word })
		if child < 0 {
			continue // an argument
		}
		node = node.Children[child]
		if complete := custom[node.Name]; complete != nil {
			return complete(words[i+1:])
		}
	}
	var all []string
	for _, child := range node.Children {
		if !child.Hidden {
			all = append(all, child.Name)
		}
	}
	for _, argument := range node.Positional {
		all = append(all, enum(argument.Enum)...)
	}
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			all = append(all, "--"+flag.Name)
		}
	}
	if len(words) > 0 && !strings.HasPrefix(words[len(words)-1], "-") {
		all = slices.DeleteFunc(all, func(word string) bool { return strings.HasPrefix(word, "-") })
	}
	return all
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if flag.Name == name || string(flag.Short) == name {
				return flag
			}
		}
	}
	return nil
}

func enum(values string) []string {
	return strings.FieldsFunc(values, func(r rune) bool { return r == ',' })
}
