package launch

import (
	"errors"
	"fmt"
	"slices"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// namesModel tells whether anything may tell the server its model.
func (c *Command) namesModel() bool {
	words := slices.Concat(c.Args, c.config().words())
	return c.config().unread || llamaserver.NamesModel(words, c.given)
}

// checkRouter refuses a server that is certain to be a router.
func (c *Command) checkRouter() error {
	const why = "a router of several models has no slots to share; want a server of one model (-m or -hf), with a sidecar of its own"
	if c.namesModel() {
		return nil
	}
	for _, o := range []llamaserver.Option{llamaserver.ModelsDir, llamaserver.ModelsPreset} {
		if v, ok := c.value(o); ok {
			return fmt.Errorf("%s %s: %s", o.Name(), v, why)
		}
	}
	if llamaserver.Program(c.Args) > 0 { // a script may add arguments
		return errors.New("the server's command names no model: " + why)
	}
	return nil
}
