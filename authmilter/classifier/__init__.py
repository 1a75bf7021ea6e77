"""A classifier that learns from the mail of the site: logistic regression over words, links and the build of a message.

`features` makes numbers of a message, `training` weights of what was learned, and `table` a file of these that all
workers share.  `learned` keeps what was learned; the daemon itself does without it.
"""
