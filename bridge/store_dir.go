package bridge

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MakePrivate makes a slot directory, or closes an existing one to others: states hold what was
// asked. One that many share (such as /tmp) is left alone, and so is one that only its owner
// could close: a pod's volume is root's, and open to the containers that mount it. One that
// CheckOwner refuses is an error.
func MakePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s is a file: expected a directory", dir)
	}
	if err := CheckOwner(dir); err != nil {
		return err
	}
	if st.Mode()&fs.ModeSticky == 0 && st.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(dir, 0o700)
	}
	return nil
}

// CheckOwner refuses a slot directory that another user, root apart, may have made so that we
// use it: he reads what is put there, and puts there what he likes. That is one that lies, or
// whose parents lie, in a directory where all users make some, such as /tmp or /dev/shm.
// Elsewhere only the operator can have made it, whosoever it is.
func CheckOwner(dir string) error { return checkOwner(dir, os.Geteuid()) }

func checkOwner(dir string, self int) error {
	given, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	led, err := filepath.EvalSymlinks(given)
	if err != nil {
		return err
	}
	for _, path := range []string{given, led} { // links may be others' too
		for ; path != filepath.Dir(path); path = filepath.Dir(path) {
			if err := checkMaker(path, self); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMaker looks at one directory of the path, or the link that leads to it.
func checkMaker(dir string, self int) error {
	parent := filepath.Dir(dir)
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	up, err := os.Stat(parent)
	if err != nil {
		return err
	}
	own, above := st.Sys().(*syscall.Stat_t), up.Sys().(*syscall.Stat_t)
	// Others may make files in a sticky directory, and not remove ours.
	sticky := up.Mode()&fs.ModeSticky != 0
	mounted := own.Dev != above.Dev // by root
	if owner := int(own.Uid); sticky && !mounted && owner != self && owner != 0 {
		return fmt.Errorf("%s belongs to user %d, and any user can make one in %s: expected user %d's or root's; name another directory, remove this one, or chown it if you trust what is in it",
			dir, owner, parent, self)
	}
	return nil
}
