package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/store"
)

// newCacheCmd is `imgbuild cache`: what the cache holds, and looking after it.
func newCacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "List, verify or prune the cache",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	dir := ""
	cmd.PersistentFlags().StringVar(&dir, "cache", "", "cache folder (default: imgbuild below the XDG cache folder)")
	open := func() (_ *store.Store, err error) {
		if dir == "" {
			if dir, err = store.DefaultDir(); err != nil {
				return nil, err
			}
		} else if _, err := os.Stat(dir); err != nil {
			return nil, fault.New(fault.Usage, "no cache is there: %w", err)
		}
		return store.Open(dir)
	}
	var older time.Duration
	ls := &cobra.Command{Use: "ls", Short: "List what is in the cache, the longest unused first", Args: usageArgs(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		s, err := open()
		if err != nil {
			return err
		}
		entries, err := s.List()
		if err != nil {
			return err
		}
		return printEntries(cmd, entries, "in the cache")
	}}
	verify := &cobra.Command{Use: "verify", Short: "Read everything in the cache and take away what is damaged", Args: usageArgs(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		s, err := open()
		if err != nil {
			return err
		}
		sound, damaged, err := s.Verify(cmd.Context())
		if err != nil {
			return err
		}
		if err := printEntries(cmd, damaged, fmt.Sprintf("damaged and taken away; %d sound", sound)); err != nil {
			return err
		}
		if len(damaged) > 0 {
			return fault.New(fault.Verify, "%d damaged entries were taken away; builds that need them make them anew", len(damaged))
		}
		return nil
	}}
	prune := &cobra.Command{Use: "prune", Short: "Take away what was not used for some time", Args: usageArgs(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		s, err := open()
		if err != nil {
			return err
		}
		if older < 0 {
			return fault.New(fault.Usage, "--older %s: want a time that is over", older)
		}
		gone, err := s.Prune(repro.Now().Add(-older))
		if err != nil {
			return err
		}
		return printEntries(cmd, gone, "taken away")
	}}
	prune.Flags().DurationVar(&older, "older", 30*24*time.Hour, "keep what was used within this time")
	cmd.AddCommand(ls, verify, prune)
	return cmd
}

func printEntries(cmd *cobra.Command, entries []store.Entry, what string) error {
	return show(cmd, append([]store.Entry{}, entries...), func(w io.Writer) error {
		var b strings.Builder
		total := int64(0)
		for _, e := range entries {
			name := "fetched"
			if len(e.Keys) > 0 {
				if name = e.Keys[0]; len(name) > 60 {
					name = name[:60] + "..."
				}
			}
			fmt.Fprintf(&b, "%s %12d  %s  %s\n", e.Digest[:19], e.Size, e.Used.UTC().Format("2006-01-02 15:04"), name)
			total += e.Size
		}
		fmt.Fprintf(&b, "%d entries, %s %s\n", len(entries), amount(total, "B"), what)
		_, err := io.WriteString(w, b.String())
		return err
	})
}
