package main

import "github.com/spf13/cobra"

func newBootCmd() *cobra.Command    { return &cobra.Command{Use: "boot"} }
func newClusterCmd() *cobra.Command { return &cobra.Command{Use: "cluster"} }
