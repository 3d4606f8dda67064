package bridge

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Files of the store, in the directory that the backend saves to:
//
//	ssk-<run>.lock             held with flock while the run lives
//	ssk-<run>-<n>.bin, .json   a reference and its metadata; the id is <run>-<n>
//	ssk-<run>-<id>.tmp         metadata of any run's reference, being written by this one
//	ssk-<run>-<n>.saved        what the backend saved, until it is written anew as .bin
//	ssk-<run>-s<n>.scratch     composed states
//	ssk-<run>-r<n>.recipe      recipes, and with .reply behind it what the agent writes its replies to
//	ssk-<run>-p<n>.state       states and recipes by which the backend is tried out
//
// No other file in the directory is ever touched.
var (
	fileName = regexp.MustCompile(`^ssk-([0-9a-f]{16})(?:\.lock|-[0-9a-f]{1,12}\.(?:bin|json|saved)|-[0-9a-f]{16}-[0-9a-f]{1,12}\.tmp|-s[0-9]{1,6}\.scratch|(?:-r[0-9]{1,12}\.recipe|-p[0-9]\.state)(?:\.reply)?)$`)
	idFormat = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{1,12}$`)
)

func lockName(run string) string            { return "ssk-" + run + ".lock" }
func stateName(id string) string            { return "ssk-" + id + ".bin" }
func metaName(id string) string             { return "ssk-" + id + ".json" }
func scratchName(run string, n int) string  { return fmt.Sprintf("ssk-%s-s%d.scratch", run, n) }
func recipeName(run string, n int64) string { return fmt.Sprintf("ssk-%s-r%d.recipe", run, n) }
func probeName(run string, n int) string    { return fmt.Sprintf("ssk-%s-p%d.state", run, n) }
func metaTmpName(run, id string) string     { return "ssk-" + run + "-" + id + ".tmp" }
func savedName(id string) string            { return "ssk-" + id + ".saved" }

func (s *Store) statePath(id string) string { return filepath.Join(s.dir, stateName(id)) }
func (s *Store) savedPath(id string) string { return filepath.Join(s.dir, savedName(id)) }
func (s *Store) metaPath(id string) string  { return filepath.Join(s.dir, metaName(id)) }

// recipePath returns the path of a recipe to come, another one at each call.
func (s *Store) recipePath() string {
	return filepath.Join(s.dir, recipeName(s.run.id, s.recipes.Add(1)))
}

// idOf is the id in the name of a reference's file.
func idOf(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, "ssk-"), filepath.Ext(name))
}
