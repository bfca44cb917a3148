"""Which criterion and which allocation lose least when a network is pruned at once? And under attack?"""
